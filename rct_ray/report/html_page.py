"""A run as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rct_ray.report.html_data import as_script, page_data
from rct_ray.report.html_picture import tower_picture
from rct_ray.report.html_settings import columns_of, command_of, failed_of, left_out_of, settings_of
from rct_ray.report.progress import printable
from rct_ray.report.words import conclusions
from rct_ray.results import ResultsError, Run, open_run
from rct_ray.results.files import check_writable, replacing

if TYPE_CHECKING:
    import pyarrow as pa

_MARKER = re.compile(r"\{\{(\w+)\}\}")


def write_report(run: Run | str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Write a run as one HTML page that loads nothing from elsewhere.

    Parameters
    ----------
    run : Run or path
        A finished run, or its directory.
    path : path
        The page to write; one that is there is replaced once the new one is whole.

    Raises
    ------
    ResultsError
        The directory is no finished run, nothing in it was measured, or the page can't be written.
    """
    opened = run if isinstance(run, Run) else open_run(run)
    path = Path(path)
    check_writable(path)
    page = render_page(opened).encode()
    try:
        with replacing(path) as file:
            file.write(page)
    except OSError as error:
        raise ResultsError(f"{path}: can't be written ({error.strerror or error})") from error


def render_page(run: Run) -> str:
    """The page's text.

    Raises
    ------
    ResultsError
        Nothing in the run was measured.
    """
    if not run.levels.num_rows:
        raise ResultsError(f"{run.path} has no towers: nothing to report")
    manifest, script = run.manifest, _asset("report.js")
    listed = manifest["checkpoints"]
    tower = _model(run, listed[-1]["label"])
    data = page_data(run)
    data["meanings"] = {field.name: _described(field) for field in run.levels.schema}
    # Texts below are HTML already: made of our own words, or escaped.
    parts = {
        "title": _text(_title(listed)),
        "tower": _text(manifest["configuration"]["tower"]),
        "metric": _text(manifest["configuration"]["metric"]),
        "measured": _measured(run, tower),
        "pictured": f"The model at <code>{_text(listed[-1]['label'])}</code>",
        "picture": tower_picture(tower),
        "conclusions": "".join(f"<li>{_text(sentence)}</li>" for sentence in conclusions(tower)),
        "failed": failed_of(run),
        "left_out": left_out_of(run),
        "command": _text(command_of(manifest)),
        "settings": settings_of(manifest),
        "columns": columns_of(run.levels.schema),
        "version": _text(str(manifest.get("rct_ray", ""))),
        "written": _text(str(manifest.get("written", ""))),
        "style": _asset("report.css"),
        "data": as_script(data),
        "script": script,
        # The page's own rule: this script runs and no other, whatever a name in the data says.
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    return _MARKER.sub(lambda marker: parts[marker[1]], _asset("report.html"))


def _asset(name: str) -> str:
    return (files("rct_ray") / "report" / "page" / name).read_text(encoding="utf-8")


def _text(value: str) -> str:
    return escape(printable(value))


def _described(field: pa.Field) -> str:
    return str((field.metadata or {}).get(b"description", b""), "utf-8")


def _title(listed: list[Mapping[str, Any]]) -> str:
    first, last = listed[0]["label"], listed[-1]["label"]
    return first if len(listed) == 1 else f"{first} to {last}: {len(listed)} checkpoints"


def _measured(run: Run, tower: list[dict[str, Any]]) -> str:
    statuses = zip(run.tensors["checkpoint"].to_pylist(), run.tensors["status"].to_pylist(), strict=True)
    label = run.manifest["checkpoints"][-1]["label"]
    of_last = [status for checkpoint, status in statuses if checkpoint == label]
    said = f"{of_last.count('used'):,} of {len(of_last):,} tensors, {tower[0]['weights']:,} weights"
    settings = run.manifest["configuration"]
    if settings.get("sample_rows"):
        said += f", {settings['sample_rows']:,} rows of each width drawn (seed {settings['seed']})"
    return said


def _model(run: Run, label: str) -> list[dict[str, Any]]:
    tower: list[dict[str, Any]] = run.levels_of(scope="model", checkpoint=label).to_pylist()
    return tower
