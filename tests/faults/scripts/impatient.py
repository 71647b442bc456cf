"""The command line with little patience: checkpoint, run directory, address, seconds."""

import sys
from functools import partialmethod

from rct_ray.cli import main
from rct_ray.engine import ray_engine

checkpoint, out, address, patience = sys.argv[1:]
ray_engine._SAY_AFTER_S = 2.0
ray_engine.RayEngine.__init__ = partialmethod(ray_engine.RayEngine.__init__, patience=float(patience))
main(["run", checkpoint, "--out", out, "--address", address, "--workers", "2"])
