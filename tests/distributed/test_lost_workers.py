"""Workers that are killed, and workers that never come: nothing changes, or an error says what is missing."""

import os
import signal
import threading
import time
from functools import partial
from typing import ClassVar

import numpy as np
import pytest

from rct_ray.engine import resident
from rct_ray.engine.distributed_pca import DistributedPCA
from rct_ray.engine.errors import EngineError

pytestmark = pytest.mark.ray


@pytest.fixture
def rows():
    return np.random.default_rng(0).standard_normal((300_000, 64)) * np.geomspace(1, 1e-6, 64)


def workers_of(pca):
    """Process ids of the workers, by block."""
    return dict(pca._resident.map(lambda _: __import__("os").getpid()))


def bits(pca):
    parts = (pca.components_, pca.singular_values_, pca.mean_)
    return b"".join(part.tobytes() for part in parts)


def test_killed_between_load_and_fit(pca, cut_rows, rows):
    blocks = cut_rows(rows[:5000], 1000, 1000, 1, 0, 1000)
    wanted = bits(pca.fit(blocks))
    before = workers_of(pca)
    for killed in ([0], [1], [0, 1]):
        for index in killed:
            os.kill(workers_of(pca)[index], signal.SIGKILL)
        assert bits(pca.fit()) == wanted
    assert set(workers_of(pca).values()).isdisjoint(before.values())


@pytest.mark.parametrize("method", ["tsqr", "randomized"])
def test_killed_in_the_middle_of_a_fit(pca, cut_rows, rows, method):
    pca.set_params(method=method, n_components=5).load(cut_rows(rows, *[20_000] * 15))
    begun = time.perf_counter()
    wanted = bits(pca.fit())
    took = time.perf_counter() - begun
    victim = workers_of(pca)[0]
    killer = threading.Timer(0.4 * took, os.kill, (victim, signal.SIGKILL))
    killer.start()
    found = bits(pca.fit())
    killer.join()
    assert found == wanted
    assert victim not in workers_of(pca).values()


def test_killed_in_the_middle_of_scores(pca, cut_rows, rows):
    blocks = cut_rows(rows[:20_000], *[1000] * 19)
    wanted = np.concatenate(list(pca.fit(blocks).transform()))
    victim = workers_of(pca)[1]
    scores = []
    for block in pca.transform():
        if len(scores) == 3:
            os.kill(victim, signal.SIGKILL)
        scores.append(block)
    assert np.concatenate(scores).tobytes() == wanted.tobytes()
    assert victim not in workers_of(pca).values()


def test_killed_while_it_loads(ray_cluster, pca, cut_rows, rows, tmp_path):
    blocks = cut_rows(rows[:5000], *[500] * 9)
    wanted = bits(pca.fit(blocks))

    def deadly_once(block, flag):
        import os
        import signal

        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return block

    given = [*blocks[:3], partial(deadly_once, blocks[3], tmp_path / "flag"), *blocks[4:]]
    given[4] = ray_cluster.put(blocks[4])
    assert bits(pca.fit(given)) == wanted
    assert (tmp_path / "flag").exists()


def test_answers_that_die_with_their_worker_are_not_blamed(monkeypatch):
    # A worker that is killed takes along what it has answered, but not yet sent.
    class Dying:
        workers = 1
        calls: ClassVar[list[int]] = []

        def submit(self, index, *_, supply):
            self.calls.append(index)
            return f"call {len(self.calls)} of {index}"

        def next_ready(self, references):
            return references[0]

        def discard(self, slot):
            self.calls.clear()

    def fetch(reference):
        index = int(reference.split()[-1])
        if 3 in Dying.calls:
            raise resident._LostCallError("killed")
        Dying.calls.remove(index)
        return index

    monkeypatch.setattr(resident, "_fetch", fetch)
    with pytest.raises(EngineError, match="every try of block 3: killed"):
        list(resident._Pass(Dying(), None, ()).run(iter(range(9)), supply=True))
    Dying.calls.clear()
    found = list(resident._Pass(Dying(), None, ()).run(iter([0, 1, 2]), supply=True))
    assert found == [(0, 0), (1, 1), (2, 2)]


def test_workers_that_never_come(ray_cluster, pca, rows, monkeypatch):
    pca.close()
    monkeypatch.setattr(resident, "_SAY_AFTER", 1.0)
    monkeypatch.setattr(resident, "_GIVE_UP_AFTER", 3.0)
    cpus = int(ray_cluster.cluster_resources()["CPU"])
    with (
        DistributedPCA(n_workers=cpus + 2) as fresh,
        pytest.warns(RuntimeWarning, match=f"{cpus + 2} workers need 1 CPU each"),
        pytest.raises(EngineError, match=f"the cluster has {cpus} CPUs"),
    ):
        fresh.fit(np.array_split(rows[:100], cpus + 2))


def test_only_what_kills_every_worker_is_blamed(pca, rows):
    # What was in flight beside it is tried again, and must neither be lost nor blamed.
    def deadly():
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)

    blocks = [rows[:10]] * 4
    for _ in range(2):
        with pytest.raises(EngineError, match="workers died at every try of block 4: "):
            pca.fit([*blocks, deadly, *blocks])
    assert pca.fit(blocks).n_samples_seen_ == 40


def test_what_is_in_flight_is_bounded(pca, rows):
    def late(block):
        import time

        time.sleep(0.5 if len(block) == 1 else 0)

    pca.load([rows[:1], *[rows[:2]] * 59])
    blocks, sent, waited_for = pca._resident, [], []
    submit, next_ready = blocks.submit, blocks.next_ready
    blocks.submit = lambda index, *args, **more: sent.append(index) or submit(index, *args, **more)
    blocks.next_ready = lambda calls: waited_for.append(len(calls)) or next_ready(calls)
    ahead = [max(sent) - index for index, _ in blocks.map(late)]
    del blocks.submit, blocks.next_ready
    assert sorted(sent) == list(range(60))
    assert max(waited_for) == 2 * resident._AHEAD
    assert max(ahead) == 2 * resident._WINDOW - 1
