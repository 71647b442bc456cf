"""A sweep on paper: 500 checkpoints of 70 B parameters, from rates measured on one machine and stated prices.

Nothing is run: `python -m benchmarks.on_paper` prints the tables of docs/scaling.md. Rates are measured by
`shard_rate` and `catalogue`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

CHECKPOINTS = 500
# Of a Llama-shaped model (benchmarks/catalogue.py): bytes of bf16 in matrices of each width.
LAYERS, WIDTH, HIDDEN, KEYS, VOCABULARY = 80, 8192, 28672, 1024, 128_256
BYTES = {
    WIDTH: 2 * WIDTH * (LAYERS * (2 * HIDDEN + 2 * WIDTH + 2 * KEYS) + 2 * VOCABULARY),
    HIDDEN: 2 * HIDDEN * LAYERS * WIDTH,
}


@dataclass(frozen=True)
class Tower:
    """What a first stage takes, by width: shards and K from the plan, the rest measured."""

    name: str
    shards: dict[int, int]
    components: dict[int, int]
    rate: dict[int, float]  # bytes a CPU second
    driver: float  # results a second

    @property
    def cpu_seconds(self) -> float:
        """Of one checkpoint."""
        return sum(BYTES[width] / self.rate[width] for width in BYTES)

    @property
    def result_bytes(self) -> int:
        """Of one checkpoint: K x K float64 a shard."""
        return sum(self.shards[width] * 8 * self.components[width] ** 2 for width in BYTES)

    @property
    def driver_seconds(self) -> float:
        """Of one checkpoint."""
        return sum(self.shards.values()) / self.driver


TOWERS = (
    Tower(
        "default (K = 256, 896)",
        shards={WIDTH: 3166, HIDDEN: 400},
        components={WIDTH: 256, HIDDEN: 896},
        rate={WIDTH: 200e6, HIDDEN: 31e6},
        driver=75,
    ),
    Tower(
        "gaussian(K=64)",
        shards={WIDTH: 3166, HIDDEN: 1200},
        components={WIDTH: 64, HIDDEN: 64},
        rate={WIDTH: 795e6, HIDDEN: 769e6},
        driver=2100,
    ),
)

# A worker node (c6in.4xlarge) and a head (r7i.xlarge); dollars an hour, as assumed.
CORES, NODE_BYTES, SPOT, HEAD = 16, 25e9 / 8, 0.36, 0.26
# One stream of the store; dollars a request, and a month for a byte.
STREAM, REQUEST, MONTH = 85e6, 0.4e-6, 0.023e-9


def hours(tower: Tower, nodes: int, *, ahead: bool) -> tuple[float, str]:
    """Hours of the sweep, and what they are spent on; `ahead`: while one block is encoded the next is read."""
    size = sum(BYTES.values())
    # As files are read today: a worker reads a block by one stream, then encodes it.
    work = tower.cpu_seconds if ahead else tower.cpu_seconds + size / STREAM
    taken = {
        "cores" if ahead else "cores and streams": work / (nodes * CORES),
        "network": size / (nodes * NODE_BYTES),
        "driver": tower.driver_seconds,
    }
    limit = max(taken, key=lambda what: taken[what])
    return CHECKPOINTS * taken[limit] / 3600, limit


def dollars(tower: Tower, nodes: int, taken: float) -> float:
    """Of nodes, head and requests; the store's months are apart."""
    requests = CHECKPOINTS * sum(tower.shards.values()) * REQUEST
    return taken * (nodes * SPOT + HEAD) + requests


def lines() -> Iterator[str]:
    """Both tables, as Markdown."""
    size = sum(BYTES.values())
    yield "| first stage | CPU hours | results to the driver | driver's hours | requests |"
    yield "|---|---|---|---|---|"
    for tower in TOWERS:
        yield (
            f"| {tower.name} | {CHECKPOINTS * tower.cpu_seconds / 3600:,.0f} | "
            f"{tower.result_bytes / 1e9:.2f} GB a checkpoint, {CHECKPOINTS * tower.result_bytes / 1e12:.2f} TB | "
            f"{CHECKPOINTS * tower.driver_seconds / 3600:.1f} | "
            f"{CHECKPOINTS * sum(tower.shards.values()) / 1e6:.1f} million |"
        )
    yield ""
    yield "| first stage | nodes | as files are read today | dollars | reading ahead | dollars |"
    yield "|---|---|---|---|---|---|"
    for tower in TOWERS:
        for nodes in (1, 4, 16, 64):
            cells = []
            for ahead in (False, True):
                taken, limit = hours(tower, nodes, ahead=ahead)
                cells += [f"{taken:.1f} h, {limit}", f"{dollars(tower, nodes, taken):,.0f}"]
            yield f"| {tower.name} | {nodes} | {' | '.join(cells)} |"
    yield ""
    yield (
        f"{CHECKPOINTS} checkpoints of {size / 1e9:.1f} GB: {CHECKPOINTS * size / 1e12:.2f} TB, "
        f"{CHECKPOINTS * size * MONTH:,.0f} dollars a month to keep."
    )


if __name__ == "__main__":
    print("\n".join(lines()))
