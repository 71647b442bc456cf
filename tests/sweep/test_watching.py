"""What a run tells: events, lines of JSON, timings, counters, and the dashboard that shows them."""

import json
import math
import re
from collections import Counter
from pathlib import Path

import pytest

import rct_ray
from rct_ray.engine.metrics import METRICS, Metrics
from rct_ray.engine.notices import EVENTS
from rct_ray.engine.phases import Phases
from rct_ray.report.timings import timings_of
from rct_ray.results import open_run

DASHBOARD = Path(__file__).parents[2] / "cluster" / "grafana-dashboard.json"


def events_of(error):
    """Every line of standard error, which must be a JSON object with a time and an event."""
    events = [json.loads(line) for line in error.splitlines()]
    for event in events:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", event["time"])
    return events


def test_a_log_of_json_lines(steps, tmp_path, cli):
    (steps / "step100.safetensors").write_bytes(b"no")
    status, _, error = cli("run", steps, "--out", tmp_path / "out", "--engine", "inprocess", "--log-json")
    assert status == 1
    events = events_of(error)
    counts = Counter(event["event"] for event in events)
    assert counts["run started"] == counts["run finished"] == counts["checkpoint failed"] == 1
    assert counts["unit done"] == counts["checkpoint done"] == 4
    assert set(counts) - {"message"} <= set(EVENTS)
    started = next(event for event in events if event["event"] == "run started")
    manifest = open_run(tmp_path / "out").manifest
    assert started["configuration_digest"] == manifest["configuration_digest"]
    assert started["bytes"] == sum(e["bytes"] for e in events if e["event"] == "unit done")
    finished = next(event for event in events if event["event"] == "run finished")
    assert (finished["checkpoints"], finished["failed"]) == (4, 1)
    failed = next(event for event in events if event["event"] == "checkpoint failed")
    assert {key: failed[key] for key in ("path", "error", "reason")} == manifest["failed"][0]


def test_what_goes_wrong_is_in_the_log_too(steps, tmp_path, cli):
    for arguments in (
        ["none.safetensors", "--out", tmp_path / "out"],
        [steps, "--out", tmp_path / "out", "--tower", "cube"],
        [steps, "--out", steps],
    ):
        status, _, error = cli("run", *arguments, "--log-json")
        assert status == 2
        (event,) = (event for event in events_of(error) if event["event"] == "run failed")
        assert event["text"].startswith("rct-ray: ")
    # The next command speaks plainly again.
    assert not cli("run", "none.safetensors", "--out", tmp_path / "out")[2].startswith("{")


def test_names_from_files_cannot_break_a_line(tmp_path, cli):
    path = tmp_path / "a\n{}\x1b[2J.safetensors"
    path.write_bytes(b"no")
    (tmp_path / "b.safetensors").write_bytes(b"no")
    status, _, error = cli("run", path, tmp_path / "b.safetensors", "--out", tmp_path / "out", "--log-json")
    assert status == 2
    assert error.isascii()
    assert len(events_of(error)) == 3


def test_phases_are_counted_once(monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr("rct_ray.engine.phases.time.perf_counter", lambda: float(next(now)))
    phases = Phases()
    with phases.during("outer"):
        with phases.during("inner"):
            pass
        assert list(phases.each("coming", [1, 2])) == [1, 2]
    # One tick from call to call, so as many as there are changes but one.
    assert phases.seconds == {"outer": 5.0, "inner": 1.0, "coming": 3.0}
    assert sum(phases.seconds.values()) == next(now) - 1


def test_timings(steps, tmp_path, cli):
    out = tmp_path / "out"
    rct_ray.run(steps, out, engine="inprocess", workers=2)
    known = timings_of(open_run(out))
    shards = open_run(out).shards
    for phase in ("read", "encode"):
        assert math.isclose(known["phases"][phase], sum(shards[f"seconds_{phase}"].to_pylist()), abs_tol=1e-5)
    assert known["phases"]["tower"] > 0 < known["phases"]["write"]
    driver = sum(known["phases"][phase] for phase in ("wait", "reduce", "tower", "write"))
    assert 0 < driver <= known["seconds"] + 0.01
    assert known["bytes"] == sum(shards["bytes"].to_pylist())
    assert sum(worker["shards"] for worker in known["workers"].values()) == shards.num_rows
    assert known["slowest"][0]["seconds"] == max(shards["seconds"].to_pylist())
    status, printed, error = cli("show", out, "--timings")
    assert (status, error) == (0, "")
    for phase in ("read", "encode", "wait", "reduce", "tower", "write"):
        assert re.search(rf"^ {phase} .*\d+\.\d{{3}} ", printed, re.MULTILINE), printed
    status, printed, _ = cli("show", out, "--timings", "--json")
    assert json.loads(printed) == known


def test_names_are_prometheus_names():
    for name in METRICS:
        assert re.fullmatch(r"rct_ray_[a-z_]+_total", name)


@pytest.mark.ray
def test_counters_count(steps, tmp_path, ray_cluster, monkeypatch):
    """On the driver; what workers count is what their results say."""
    counted = Counter()
    monkeypatch.setattr(
        Metrics,
        "_add",
        lambda self, name, amount, tags=None: counted.update({(name, *(tags or {}).values()): amount}),
    )
    (steps / "step100.safetensors").write_bytes(b"no")
    run = rct_ray.run(steps, tmp_path / "out", engine="ray", workers=2)
    assert counted["rct_ray_units_done_total",] == 4
    assert counted["rct_ray_checkpoints_done_total",] == 4
    assert counted["rct_ray_checkpoints_failed_total",] == 1
    tower = sum(listed["seconds"]["tower"] for listed in run.manifest["checkpoints"])
    assert math.isclose(counted["rct_ray_seconds_total", "tower"], tower, abs_tol=1e-4)
    # Of Ray's own making, with names it takes.
    monkeypatch.undo()
    metrics = Metrics()
    metrics.shard(type("Result", (), {"nbytes": 10, "seconds_read": 0.0, "seconds_encode": 0.5})())
    for counter in metrics._counters.values():
        assert not counter._discard_metric


def test_the_dashboard_shows_what_there_is():
    """Every metric of ours in it is one that the code counts, and every one is in it."""
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    named = {name for expression in expressions for name in re.findall(r"\bray_rct_ray_\w+", expression)}
    assert {f"ray_{name}" for name in METRICS} == named
    phases = {phase for expression in expressions for phase in re.findall(r'phase="(\w+)"', expression)}
    assert phases <= {"read", "encode", "wait", "reduce", "tower", "write"}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    assert dashboard["uid"]
    assert all(
        panel["datasource"]["uid"] == "${datasource}" for panel in dashboard["panels"] if "targets" in panel
    )
