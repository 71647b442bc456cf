"""One frozen configuration of a run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from rct_ray.transform.affine_code import Metric
from rct_ray.transform.stages import Stage
from rct_ray.transform.tower_language import DEFAULT_TOWER, parse_tower

EngineName = Literal["auto", "inprocess", "ray"]
Null = Literal["noise", "shuffle"]
SvdBound = Literal["auto", "always", "never"]
PcaMethod = Literal["auto", "moments", "tsqr", "gather", "randomized"]

MEBIBYTE = 1 << 20


class ConfigError(ValueError):
    """A setting that makes no sense; one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What to measure, and how the work is cut; all that a table depends on, and nothing else.

    Attributes
    ----------
    tower : str
    metric : {"isometric", "amplitude"}
    include, exclude : tuple of str
        Globs of tensor names (case matters); a tensor is taken if it meets any of `include` (all, if there
        are none) and none of `exclude`.
    columns : int or None
        Only matrices of this width.
    count_tied : bool
        Take tensors also that are known to be the same bytes as one taken before.
    sample_rows : int or None
        Draw this many rows of each width, without replacement, from the selected matrices stacked in the
        checkpoint's order: `default_rng(seed).choice(rows, sample_rows, replace=False)`.
    seed : int
    null : {"noise", "shuffle"}
        What structureless weights are: normal noise of the same mean and variance, or the weights' own entries
        shuffled among the rows that are read together.
    svd_bound : {"auto", "always", "never"}
        Whether to keep the d x d moments that the SVD bound and the stable rank need; "auto" keeps them for
        widths where they cost little (see `engine.plan`).
    pca : {"auto", "moments", "tsqr", "gather", "randomized"}
        How rows of coordinates are kept until they are decomposed (see `engine.pca_method`).
    driver_memory : int
        Bytes that the coordinates of one level may take on the driver.
    strict : bool
        Refuse tensors with NaN or Inf instead of leaving them out.
    shard_bytes : int or None
        Most bytes of one tensor in one shard; by default 32 MiB, or 16 times its moments' bytes. Moments are
        merged shard by shard, so this, and never the number of workers, fixes the last bit of every figure.
    block_bytes : int
        Bytes of weights that an encoder takes at once; should fit a core's own cache.
    preset : str or None
        Name of the preset these settings came from.
    """

    tower: str = DEFAULT_TOWER
    metric: Metric = "isometric"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    columns: int | None = None
    count_tied: bool = False
    sample_rows: int | None = None
    seed: int = 7
    null: Null = "noise"
    svd_bound: SvdBound = "auto"
    pca: PcaMethod = "auto"
    driver_memory: int = 1024 * MEBIBYTE
    strict: bool = False
    shard_bytes: int | None = None
    block_bytes: int = MEBIBYTE
    preset: str | None = None
    stages: tuple[Stage, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", parse_tower(self.tower))
        if self.metric not in get_args(Metric):
            raise ConfigError(f"metric must be isometric or amplitude, not {self.metric!r}")
        if self.null not in get_args(Null):
            raise ConfigError(f"null must be noise or shuffle, not {self.null!r}")
        if self.svd_bound not in get_args(SvdBound):
            raise ConfigError(f"svd-bound must be auto, always or never, not {self.svd_bound!r}")
        if self.pca not in get_args(PcaMethod):
            raise ConfigError(f"pca must be one of {', '.join(get_args(PcaMethod))}, not {self.pca!r}")
        for name, least in (
            ("driver_memory", 1),
            ("columns", 1),
            ("sample_rows", 1),
            ("seed", 0),
            ("shard_bytes", 1),
            ("block_bytes", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name.replace('_', '-')} must be at least {least}, not {value}")

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types, for the manifest."""
        plain = asdict(self)
        del plain["stages"]
        return plain

    @property
    def digest(self) -> str:
        """SHA-256 of the settings; equal digests and equal inputs give equal tables."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()


# The seed's experiment: 512 rows of the width-256 matrices, PCA of the raw amplitudes.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper67": {
        "tower": "gaussian(K=8) > pca(0.95) > pca(0.95) > pca(0.95)",
        "metric": "amplitude",
        "columns": 256,
        "exclude": ("pos_emb*",),
        "sample_rows": 512,
        "seed": 7,
    }
}


def from_preset(name: str, **settings: Any) -> RunConfig:
    """Build a preset's configuration, with some settings changed.

    Raises
    ------
    ConfigError
        If there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}; there is {', '.join(PRESETS)}")
    return RunConfig(**{**PRESETS[name], **settings, "preset": name})


_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30}


def parse_bytes(text: str) -> int:
    """Read a size such as 500MB, 1GiB or 1073741824.

    Raises
    ------
    ConfigError
        If it is no size.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMG]I?)?B?", text.strip().upper())
    if match is None:
        raise ConfigError(f"{text!r} is no size in bytes; write such as 500MB or 1GiB")
    return int(float(match[1]) * _UNITS[match[2] or ""])
