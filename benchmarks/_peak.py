"""Run the command line in this process and write the most memory it held: `_peak FILE ARGUMENT...`."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from rct_ray.cli import main


def peak() -> int:
    """Bytes resident at most.

    Linux lets ru_maxrss outlive the exec, so a large parent would be counted; VmHWM is this program's own.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    counted = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return counted if sys.platform == "darwin" else counted * 1024


if __name__ == "__main__":
    try:
        main(sys.argv[2:])
    finally:
        Path(sys.argv[1]).write_text(str(peak()))
