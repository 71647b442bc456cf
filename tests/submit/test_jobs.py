"""Jobs on a real head: the run they make, how they end, and what is refused before they are sent."""

import http.server
import json
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest

import rct_ray
from rct_ray.submit.client import Cluster, _entrypoint
from rct_ray.submit.follow import follow
from rct_ray.submit.wheel import build_wheel

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("no_ray_variables")]


COUNTING = "import time\nfor n in range(60): print('line', n, 'x' * 20, flush=True); time.sleep(0.1)"


@pytest.fixture(scope="module")
def cluster(head):
    return Cluster(head)


def jobs(cluster):
    return {job.submission_id for job in cluster.client.list_jobs()}


def refused(outcome, *words):
    status, out, error = outcome
    assert (status, out) == (2, ""), error
    assert error.count("\n") == 1, error
    for word in words:
        assert word in error, error


# How jobs end.


def test_a_submitted_run_is_the_run_of_this_machine(cli, head, cluster, tiny, tmp_path):
    options = ("--tower", "gaussian(K=4) > pca(0.9)", "--include", "*attn*", "--include", "head*")
    before = jobs(cluster)
    status, out, error = cli(
        *(
            "submit",
            tiny,
            "--out",
            tmp_path / "there",
            "--workers",
            1,
            *options,
            "--address",
            head,
            "--follow",
        )
    )
    assert status == 0, out + error
    (job,) = jobs(cluster) - before
    assert f"{job} was sent to {head}" in error
    assert f"{job}: SUCCEEDED" in error
    assert "3 of 17 tensors measured" in out
    here = rct_ray.run(tiny, tmp_path / "here", tower="gaussian(K=4) > pca(0.9)", include=("*attn*", "head*"))
    there = rct_ray.open_run(tmp_path / "there", verify=True)
    assert there.levels.equals(here.levels)
    assert there.manifest["engine"]["name"] == "ray"
    status, printed, _ = cli("status", job, "--address", head, "--json")
    said = json.loads(printed)
    assert (status, said["status"], said["exit_status"]) == (0, "SUCCEEDED", 0)
    assert said["metadata"]["configuration_digest"] == here.manifest["configuration_digest"]
    assert said["metadata"]["rct_ray"] == here.manifest["rct_ray"]
    # A run that is stopped writes down what it has.
    environment = cluster.client.get_job_info(job).runtime_env["env_vars"]
    assert int(environment["RAY_JOB_STOP_WAIT_TIME_S"]) >= 10
    assert cli("logs", job, "--address", head)[1] == out


def test_bad_input_on_the_cluster_ends_with_its_own_status(cli, head, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no header")
    status, out, error = cli("submit", broken, "--out", tmp_path / "out", "--address", head, "--follow")
    assert status == 2, out + error
    assert "broken.safetensors" in out.splitlines()[-1]
    assert out.splitlines()[-1].startswith("rct-ray: ")
    assert error.endswith("FAILED: exit status 2\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("command", "expected"), [("exit 130", 130), ("exit 1", 1), ("kill -9 $$", 1)])
def test_the_drivers_status_comes_through(cli, head, cluster, command, expected):
    job = cluster.client.submit_job(entrypoint=command)
    assert cli("logs", job, "--follow", "--address", head)[0] == expected


def test_a_stopped_job_is_no_success(cli, head, cluster):
    job = cluster.client.submit_job(entrypoint="echo begun; exec sleep 300")
    deadline = time.monotonic() + 60
    while "begun" not in cluster.logs(job) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert cli("status", job, "--address", head)[1].startswith("RUNNING")
    status, out, _ = cli("stop", job, "--address", head)
    assert status == 0
    assert out.startswith("STOPPED")
    status, out, error = cli("logs", job, "--follow", "--address", head)
    assert status == 130
    assert "begun" in out
    assert "STOPPED" in error
    # Once more changes nothing.
    assert cli("stop", job, "--address", head)[1].startswith("STOPPED")


# The log.


@pytest.mark.parametrize("stall", [False, True])
def test_following_survives_streams_that_end_early(cluster, tunnel, stall, monkeypatch):
    monkeypatch.setattr("rct_ray.submit.follow._SILENCE_S", 3.0)
    cut = tunnel(cut_after=1500, stall=stall)
    job = cluster.client.submit_job(entrypoint=f'python -c "{COUNTING}"')
    heard = []
    state = follow(Cluster(cut.url), job, heard.append)
    assert state.exit_status == 0
    assert cut.cuts >= (1 if stall else 2)
    said = [line for line in "".join(heard).splitlines() if line.startswith("line")]
    assert said == [f"line {n} {'x' * 20}" for n in range(60)]


def test_a_cluster_that_goes_away_is_given_up(cluster, tunnel):
    way = tunnel(cut_after=10)
    job = cluster.client.submit_job(entrypoint="echo begun; exec sleep 60")
    through = Cluster(way.url)
    way.closed = True
    try:
        assert follow_after_first_answer(through, cluster, job) is None
    finally:
        cluster.stop(job)


def follow_after_first_answer(through, cluster, job):
    """Follow where the first question is answered and nothing after it."""
    answers = iter([cluster.state(job)])
    asked = through.state
    through.state = lambda job: next(answers, None) or asked(job)
    return follow(through, job, lambda text: None, patience=2)


# The code that runs.


def test_driver_and_workers_run_the_code_that_was_sent(cluster, tmp_path):
    # The head was started in this checkout, whose code must not win.
    code = (
        "import ray, rct_ray; ray.init(log_to_driver=False); print('driver', rct_ray.__file__); "
        "print('worker', ray.get(ray.remote(lambda: __import__('rct_ray').__file__).remote()))"
    )
    line = _entrypoint([], own_directory=False).replace("-m rct_ray", f'-c "{code}"')
    job = cluster.client.submit_job(entrypoint=line, runtime_env={"py_modules": [str(build_wheel(tmp_path))]})
    said = []
    assert follow(cluster, job, said.append).exit_status == 0
    places = dict(
        line.split(" ") for line in "".join(said).splitlines() if line.startswith(("driver", "worker"))
    )
    assert places["driver"] == places["worker"]
    assert "py_modules_files" in places["driver"]


def test_a_checkouts_code_runs_instead(cli, head, tiny, tmp_path):
    checkout = tmp_path / "checkout"
    package = Path(rct_ray.__file__).parent
    shutil.copytree(package, checkout / "rct_ray", ignore=shutil.ignore_patterns("__pycache__", "data"))
    main = checkout / "rct_ray" / "__main__.py"
    main.write_text(f"print('from', __file__)\n{main.read_text()}")
    status, out, error = cli(
        *("submit", tiny, "--out", tmp_path / "out", "--workers", 1, "--columns", 1024),
        *("--address", head, "--working-dir", checkout, "--follow"),
    )
    assert status == 0, out + error
    (place,) = [line for line in out.splitlines() if line.startswith("from ")]
    assert "working_dir_files" in place
    assert rct_ray.open_run(tmp_path / "out").manifest["rct_ray"]


# What is refused before it is sent.


def test_refusals_send_nothing(cli, head, cluster, tiny, tmp_path, monkeypatch):
    before = jobs(cluster)
    send = ("submit", tiny, "--address", head)
    refused(cli(*send), "--out")
    refused(cli(*send, "--out", tmp_path, "--engine", "inprocess"), "--engine")
    refused(cli(*send, "--out", tmp_path, "--tower", "gaussian("), "tower")
    refused(cli(*send, "--out", tmp_path, "--no-such-option"), "--no-such-option")
    refused(cli("submit", "--address", head, "--out", tmp_path), "CHECKPOINT")
    refused(cli(*send, "--out", tmp_path, "--working-dir", tmp_path), "no checkout")
    monkeypatch.setenv("RAY_ADDRESS", "http://elsewhere:8265")
    refused(cli(*send, "--out", tmp_path), head, "http://elsewhere:8265", "RAY_ADDRESS")
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr(socket, "gethostname", lambda: "laptop")
    refused(cli(*send, "--out", tmp_path / "out"), str(tiny), "--shared-path")
    shared = tiny.parent
    refused(
        cli(*send, "--out", tmp_path / "out", "--shared-path", shared), str(tmp_path / "out"), str(shared)
    )
    assert jobs(cluster) == before


def test_unknown_jobs_are_one_line(cli, head):
    for command in ("status", "logs", "stop"):
        refused(cli(command, "no-such-job", "--address", head), "no job no-such-job", head)
    refused(cli("logs", "no-such-job", "--follow", "--address", head), "no job no-such-job")


class _Other(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("answer", "words"), [(200, "not the Jobs API"), (404, "not the Jobs API"), (401, "RAY_AUTH_TOKEN")]
)
def test_what_is_no_jobs_api_is_one_line(cli, answer, words):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Other) as server:
        server.status = answer
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        refused(cli("status", "job", "--address", url), words, url)
        server.shutdown()
