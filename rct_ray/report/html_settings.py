"""Parts of a page that need no script: settings, the command, what was left out, what columns mean."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from rct_ray.report.progress import printable

if TYPE_CHECKING:
    import pyarrow as pa

    from rct_ray.results import Run

# Settings that have an option of the same name.
_OPTIONS = ("tower", "metric", "columns", "sample_rows", "seed", "null", "svd_bound", "pca", "driver_memory")
# More names than this of one reason fill the page; the rest are counted.
_NAMES_SHOWN = 200


def command_of(manifest: Mapping[str, Any]) -> str:
    """The command that measures the same again: every setting said, so that no default matters."""
    settings = manifest["configuration"]
    words = ["rct-ray", "run", *(listed["path"] for listed in manifest["checkpoints"]), "--out", "AGAIN"]
    for name in _OPTIONS:
        if settings.get(name) is not None:
            words += [f"--{name.replace('_', '-')}", str(settings[name])]
    for name in ("include", "exclude"):
        for glob in settings.get(name, ()):
            words += [f"--{name}", glob]
    if settings.get("strict"):
        words.append("--strict")
    return shlex.join(words)


def settings_of(manifest: Mapping[str, Any]) -> str:
    """The configuration, the engine and the inputs as a list of definitions."""
    engine = manifest.get("engine", {})
    said: dict[str, Any] = {
        **manifest["configuration"],
        "configuration digest": manifest.get("configuration_digest"),
        "engine": f"{engine.get('name', '-')}, {engine.get('workers', '-')} workers; changes no figure",
        "seconds": manifest.get("seconds"),
    }
    items = "".join(f"<dt>{_text(name)}</dt><dd>{_value(value)}</dd>" for name, value in said.items())
    inputs = "".join(
        f"<li><code>{_text(file['path'])}</code>, {file['bytes']:,} bytes, header sha256 "
        f"<code>{_text(file['header_sha256'])}</code></li>"
        for listed in manifest["checkpoints"]
        for file in listed.get("files", ())
    )
    return f"<dl>{items}</dl><details><summary>Files that were read</summary><ul>{inputs}</ul></details>"


def left_out_of(run: Run) -> str:
    """The last checkpoint's tensors that are in no tower, by reason."""
    label = run.manifest["checkpoints"][-1]["label"]
    table = run.tensors.select(["checkpoint", "name", "status", "skip_reason"])
    reasons: Counter[str] = Counter()
    names: dict[str, list[str]] = {}
    for row in table.to_pylist():
        if row["checkpoint"] == label and row["status"] != "used":
            reason = row["skip_reason"] or row["status"]
            reasons[reason] += 1
            kept = names.setdefault(reason, [])
            if len(kept) < _NAMES_SHOWN:
                kept.append(row["name"])
    if not reasons:
        return "<p>There are none: every tensor was measured.</p>"
    return "".join(_reason(reason, count, names[reason]) for reason, count in reasons.most_common())


def _reason(reason: str, count: int, names: list[str]) -> str:
    rest = f" and {count - len(names):,} more, in <code>tensors</code>" if count > len(names) else ""
    listed = ", ".join(f"<code>{_text(name)}</code>" for name in names)
    return f"<details><summary>{count:,}: {_text(reason)}</summary><p>{listed}{rest}</p></details>"


def failed_of(run: Run) -> str:
    """Checkpoints that could not be measured, as a note; nothing if there are none."""
    if not run.failed:
        return ""
    items = "".join(
        f"<li><code>{_text(one['path'])}</code>: {_text(one['reason'])}</li>" for one in run.failed
    )
    return f'<div class="note"><p>Checkpoints that could not be measured:</p><ul>{items}</ul></div>'


def columns_of(schema: pa.Schema) -> str:
    """Rows of a table: each column's name and its description."""
    return "".join(
        f"<tr><td><code>{_text(field.name)}</code></td>"
        f"<td>{_text((field.metadata or {}).get(b'description', b'').decode())}</td></tr>"
        for field in schema
    )


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(f"<code>{_text(str(one))}</code>" for one in value) or "-"
    return "-" if value is None else _text(str(value))


def _text(value: str) -> str:
    return escape(printable(value))
