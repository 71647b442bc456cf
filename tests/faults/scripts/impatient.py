"""The command line with little patience: checkpoint, run directory, address."""

import sys
from functools import partialmethod

from rct_ray.cli import main
from rct_ray.engine import ray_engine

checkpoint, out, address = sys.argv[1:]
ray_engine._SAY_AFTER_S = 2.0
ray_engine.RayEngine.__init__ = partialmethod(ray_engine.RayEngine.__init__, patience=2.0)
main(["run", checkpoint, "--out", out, "--address", address, "--workers", "2"])
