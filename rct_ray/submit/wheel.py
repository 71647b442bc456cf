"""A wheel of the installed package, so that the cluster runs the code that this machine has."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import rct_ray

_NAME = "rct-ray"
# Of the oldest date that a zip file can hold: equal code makes equal wheels.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_LEFT_OUT = {"__pycache__"}


def build_wheel(folder: Path, *, code: bool = True) -> Path:
    """Write a wheel of the package that this process runs, installed or editable.

    It requires nothing: Ray installs it with `pip install --target`, which would fetch every requirement anew
    (Ray and NumPy too) and put it before what the cluster has. The cluster's own environment must hold them.

    Parameters
    ----------
    folder : Path
        Where to write it.
    code : bool
        Whether it holds the code, or only says the version, for code that comes another way.

    Returns
    -------
    Path
        Its name holds a digest of its contents: Ray takes wheels of one name for the same.
    """
    installed = distribution(_NAME)
    info = f"rct_ray-{installed.version}.dist-info"
    files = dict(_code()) if code else {}
    files[f"{info}/METADATA"] = _metadata(installed.version, installed.metadata["Requires-Python"])
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(f"{name} {len(data)} ".encode() + data)
    # The build tag of a wheel begins with a number.
    build = f"0x{digest.hexdigest()[:16]}"
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: {_NAME}\nRoot-Is-Purelib: true\nBuild: {build}\nTag: py3-none-any\n"
    ).encode()
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    path = folder / f"rct_ray-{installed.version}-{build}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return path


def requirements() -> list[str]:
    """What the package needs beside Ray, which the cluster has."""
    needed = distribution(_NAME).requires or []
    return [line for line in needed if "extra ==" not in line and not line.startswith("ray")]


def _code() -> Iterator[tuple[str, bytes]]:
    package = Path(rct_ray.__file__).parent
    for path in package.rglob("*"):
        if path.is_file() and not _LEFT_OUT & set(path.parts):
            yield f"rct_ray/{path.relative_to(package).as_posix()}", path.read_bytes()


def _metadata(version: str, python: str) -> bytes:
    return f"Metadata-Version: 2.1\nName: {_NAME}\nVersion: {version}\nRequires-Python: {python}\n".encode()


def _record(files: dict[str, bytes], itself: str) -> bytes:
    lines = []
    for name, data in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}\n")
    return "".join([*lines, f"{itself},,\n"]).encode()
