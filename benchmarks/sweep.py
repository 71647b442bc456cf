"""A sweep of 32 checkpoints of 10 million parameters: two Ray workers against two threads, Ray's start left out.

Ray is started, and its workers warmed by a checkpoint of another name, before the clock runs: what is compared is
the same units, taken by actors of two processes or by threads of one.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks._files import _header, noise
from benchmarks._table import Report, at_most
from benchmarks._timing import fastest

CHECKPOINTS, WORKERS, ROUNDS = 32, 2, 2
# A GPT of width 256: what training makes of a byte-pair vocabulary and eight blocks.
_SHAPES = [
    ("tok_emb.weight", (15_007, 256)),
    *(
        (f"blocks.{block}.{name}.weight", shape)
        for block in range(8)
        for name, shape in (
            ("attn.c_attn", (768, 256)),
            ("attn.c_proj", (256, 256)),
            ("mlp.0", (1024, 256)),
            ("mlp.2", (256, 1024)),
        )
    ),
]


def main() -> bool:
    import rct_ray
    from rct_ray.engine.ray_session import import_ray, join_ray
    from rct_ray.results import open_run

    report = Report("A sweep of checkpoints", "what", "seconds", "in process")
    weights = sum(rows * width for _, (rows, width) in _SHAPES)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for step in range(CHECKPOINTS):
            _write(directory / "runs" / f"step{step:05d}.safetensors", step)
        _write(directory / "warm.safetensors", CHECKPOINTS)
        ray = import_ray()
        join_ray("local", WORKERS)
        try:
            outs = iter(range(1000))

            def sweep(engine: str, source: str = "runs") -> None:
                out = directory / f"{engine}-{source}-{next(outs)}"
                rct_ray.run(directory / source, out, engine=engine, workers=WORKERS)

            for engine in ("ray", "inprocess"):
                sweep(engine, "warm.safetensors")
            works = {"inprocess": lambda: sweep("inprocess"), "ray": lambda: sweep("ray")}
            best = fastest(works, ROUNDS)
        finally:
            ray.shutdown()
        runs = [open_run(next(directory.glob(f"{engine}-runs-*"))) for engine in works]
        digests = [
            [output["sha256"] for output in run.manifest["outputs"] if output["table"] != "shards"]
            for run in runs
        ]
        report.add(
            f"{CHECKPOINTS} x {weights / 1e6:.1f} M weights, {WORKERS} Ray workers",
            f"{best['ray']:.2f}",
            f"{best['inprocess']:.2f}",
            ratio=best["ray"] / best["inprocess"],
            required=at_most(1.3),
        )
        same = digests[0] == digests[1]
        report.add(
            "tables that differ", "0" if same else "some", "0", ratio=float(not same), required=at_most(0)
        )
    return report.show()


def _write(path: Path, seed: int) -> None:
    """Another checkpoint for each seed, in bf16: the same numbers from another place on."""
    path.parent.mkdir(exist_ok=True)
    sizes = [2 * rows * width for _, (rows, width) in _SHAPES]
    values = np.roll(noise(sum(sizes) // 2).view(np.uint32) >> 16, 4099 * seed).astype("<u2")
    path.write_bytes(_header("BF16", _SHAPES, sizes) + values.tobytes())


if __name__ == "__main__":
    sys.exit(not main())
