"""How compressible are the weights of a neural network? Towers of transforms over checkpoints.

Importing this package imports neither Ray nor scikit-learn, PyArrow, torch or CuPy; each comes in when
something that needs it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rct_ray.api import inspect, plan_checkpoint, run
    from rct_ray.checkpoint import CheckpointError, find_checkpoints, open_checkpoint
    from rct_ray.config import ConfigError, RunConfig, from_preset
    from rct_ray.engine.distributed_pca import DistributedPCA
    from rct_ray.engine.errors import AddressError, EngineError, NonFiniteError, PlanError
    from rct_ray.fronts import frontier
    from rct_ray.rebuild import RebuildError, code_sizes, reconstruct, verify
    from rct_ray.report.html_page import write_report
    from rct_ray.results import ResultsError, Run, open_run
    from rct_ray.sweep import SweepError
    from rct_ray.transform.basis import BasisError
    from rct_ray.transform.estimators import DCTBasis, GaussianBasis, HaarBasis
    from rct_ray.transform.free_estimator import FreeGaussians
    from rct_ray.transform.learned_estimators import PCA, SVDBasis
    from rct_ray.transform.tower_estimator import Tower
    from rct_ray.transform.tower_language import TowerSyntaxError

_HOMES = {
    "run": "api",
    "inspect": "api",
    "frontier": "fronts",
    "plan_checkpoint": "api",
    "open_checkpoint": "checkpoint",
    "find_checkpoints": "checkpoint",
    "CheckpointError": "checkpoint",
    "RunConfig": "config",
    "ConfigError": "config",
    "from_preset": "config",
    "AddressError": "engine.errors",
    "PlanError": "engine.errors",
    "NonFiniteError": "engine.errors",
    "EngineError": "engine.errors",
    "DistributedPCA": "engine.distributed_pca",
    "write_report": "report.html_page",
    "reconstruct": "rebuild",
    "verify": "rebuild",
    "code_sizes": "rebuild",
    "RebuildError": "rebuild",
    "open_run": "results",
    "Run": "results",
    "ResultsError": "results",
    "SweepError": "sweep",
    "TowerSyntaxError": "transform.tower_language",
    "BasisError": "transform.basis",
    "GaussianBasis": "transform.estimators",
    "DCTBasis": "transform.estimators",
    "FreeGaussians": "transform.free_estimator",
    "HaarBasis": "transform.estimators",
    "SVDBasis": "transform.learned_estimators",
    "PCA": "transform.learned_estimators",
    "Tower": "transform.tower_estimator",
}

__all__ = [
    "PCA",
    "AddressError",
    "BasisError",
    "CheckpointError",
    "ConfigError",
    "DCTBasis",
    "DistributedPCA",
    "EngineError",
    "FreeGaussians",
    "GaussianBasis",
    "HaarBasis",
    "NonFiniteError",
    "PlanError",
    "RebuildError",
    "ResultsError",
    "Run",
    "RunConfig",
    "SVDBasis",
    "SweepError",
    "Tower",
    "TowerSyntaxError",
    "code_sizes",
    "find_checkpoints",
    "from_preset",
    "frontier",
    "inspect",
    "open_checkpoint",
    "open_run",
    "plan_checkpoint",
    "reconstruct",
    "run",
    "verify",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rct_ray' has no attribute {name!r}")
    return getattr(import_module(f"rct_ray.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
