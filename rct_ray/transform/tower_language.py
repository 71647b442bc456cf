"""The language that towers are written in.

``gaussian > pca(0.95) > pca(0.95)`` reads: fit each row of weights with Gaussians, then principal components
of the amplitudes, then principal components of those scores.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from rct_ray.transform.quantize import MOST_BITS
from rct_ray.transform.stages import (
    DCTStage,
    Fit,
    FreeGaussianStage,
    GaussianStage,
    HaarStage,
    Order,
    PCAStage,
    PlacedGaussianStage,
    QuantizeStage,
    RandomStage,
    RowFit,
    RowGaussianStage,
    RowOrder,
    Share,
    Stage,
    SVDStage,
    shared_over_width,
)


class TowerSyntaxError(ValueError):
    """A tower that can't be read; the message points at the character."""

    def __init__(self, fault: str, text: str, position: int) -> None:
        self.position = position
        message = f"{fault}, at character {position + 1} of the tower: {text[:position]}→{text[position:]}"
        super().__init__(re.sub(r"\s", " ", message))


DEFAULT_TOWER = "gaussian > pca(0.95) > pca(0.95) > pca(0.95)"


def _count(written: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", written) or int(written) < 1:
        raise ValueError(f"K must be a whole number of at least 1, not '{written}'")
    return int(written)


def _bits(written: str) -> int:
    if not re.fullmatch(r"[0-9]{1,2}", written) or not 1 <= int(written) <= MOST_BITS:
        raise ValueError(f"bits must be a whole number from 1 to {MOST_BITS}, not '{written}'")
    return int(written)


def _number(name: str, most: float, range_: str) -> Callable[[str], float]:
    def read(written: str) -> float:
        try:
            number = float(written)
        except ValueError:
            raise ValueError(f"{name} must be a number, not '{written}'") from None
        if not 0 < number <= most:
            raise ValueError(f"{name} must be {range_}, not {written}")
        return number

    return read


def _one_of(name: str, choices: Sequence[str]) -> Callable[[str], str]:
    def read(written: str) -> str:
        if written not in choices:
            raise ValueError(f"{name} must be {' or '.join(choices)}, not '{written}'")
        return written

    return read


@dataclass(frozen=True, slots=True)
class _Option:
    """Which field of a stage an option sets, and how its value is read (a ValueError says what is wrong)."""

    field: str
    read: Callable[[str], int | float | str]


def _gaussian(axis: str = "columns", **values: Any) -> Stage:
    """Along the columns or along the rows; as they stand, in order, or fitted."""
    signs = values.pop("signs", None)
    if axis == "rows":
        if values.get("order") not in (None, *get_args(RowOrder)):
            raise ValueError("along the rows order is none or svd")
        if signs or "fit" in values:
            raise ValueError(f"{'signs' if signs else 'fit'} is for axis=columns")
        return RowGaussianStage(**values)
    if signs and values.get("order") != "assign":
        raise ValueError("signs are for order=assign")
    if values.get("fit") in get_args(RowFit):
        if values.pop("order", "none") != "none":
            raise ValueError("rows with centres of their own have no order in common: order or fit, not both")
        return FreeGaussianStage(**values)
    if values.get("order", "none") == "none" and values.get("fit", "fixed") == "fixed":
        return GaussianStage(**{key: value for key, value in values.items() if key not in ("order", "fit")})
    return PlacedGaussianStage(**values, signs=signs != "no")


_COMPONENTS = {"K": _Option("n_components", _count)}
# What each stage takes; the first option is what a bare value means.
_STAGES: Mapping[str, tuple[Callable[..., Stage], Mapping[str, _Option]]] = {
    "gaussian": (
        _gaussian,
        {
            **_COMPONENTS,
            "width": _Option(
                "relative_width", _number("width", 1000, "above 0 (in units of d/K) and at most 1000")
            ),
            "axis": _Option("axis", _one_of("axis", ("columns", "rows"))),
            "order": _Option("order", _one_of("order", get_args(Order))),
            "signs": _Option("signs", _one_of("signs", ("yes", "no"))),
            "fit": _Option("fit", _one_of("fit", (*get_args(Fit), *get_args(RowFit)))),
        },
    ),
    "dct": (DCTStage, _COMPONENTS),
    "haar": (HaarStage, _COMPONENTS),
    "random": (RandomStage, _COMPONENTS),
    "svd": (SVDStage, {**_COMPONENTS, "share": _Option("share", _one_of("share", get_args(Share)))}),
    "quantize": (QuantizeStage, {"bits": _Option("bits", _bits)}),
    "pca": (PCAStage, {"threshold": _Option("threshold", _number("threshold", 1, "above 0 and at most 1"))}),
}
_STAGE = re.compile(r"\s*(?P<name>[A-Za-z_]\w*)\s*(?P<call>\((?P<options>[^()]*)\))?\s*")


def parse_tower(text: str) -> tuple[Stage, ...]:
    """Read a tower such as ``gaussian(K=8) > pca(0.95)``.

    Raises
    ------
    TowerSyntaxError
        Unknown stage or option, a value out of range, or anything that is not a tower.
    """
    stages: list[Stage] = []
    position = 0
    while True:
        match = _STAGE.match(text, position)
        if match is None:
            raise TowerSyntaxError(
                "expected a stage (" + ", ".join(_STAGES) + ")", text, _skip_space(text, position)
            )
        stage = _stage(match, text)
        if stages and isinstance(stages[-1], QuantizeStage):
            raise TowerSyntaxError("quantize is the last stage", text, match.start("name"))
        if stages and shared_over_width(stage):
            raise TowerSyntaxError("share=width is for the first stage", text, match.start("name"))
        stages.append(stage)
        position = match.end()
        if position == len(text):
            return tuple(stages)
        if text[position] != ">":
            fault = "unclosed '('" if text[position] == "(" else "expected '>' between stages"
            raise TowerSyntaxError(fault, text, position)
        position += 1


def format_tower(stages: tuple[Stage, ...]) -> str:
    """The canonical text of a tower; `parse_tower` reads it back."""
    return " > ".join(stage.spec for stage in stages)


def _skip_space(text: str, position: int) -> int:
    return position + len(text[position:]) - len(text[position:].lstrip())


def _stage(match: re.Match[str], text: str) -> Stage:
    name = match["name"]
    if name not in _STAGES:
        close = difflib.get_close_matches(name, _STAGES, n=1)
        hint = f"did you mean {close[0]}?" if close else "known: " + ", ".join(_STAGES)
        raise TowerSyntaxError(f"unknown stage '{name}' ({hint})", text, match.start("name"))
    make, options = _STAGES[name]
    values: dict[str, int | float | str] = {}
    if match["call"] and match["options"].strip():
        position = match.start("options")
        for part in match["options"].split(","):
            field, value = _option(name, part, position, options, text)
            if field in values:
                raise TowerSyntaxError("given twice", text, _skip_space(text, position))
            values[field] = value
            position += len(part) + 1
    try:
        return make(**values)
    except ValueError as error:
        raise TowerSyntaxError(str(error), text, match.start("name")) from None


def _option(
    name: str, part: str, position: int, options: Mapping[str, _Option], text: str
) -> tuple[str, int | float | str]:
    position = _skip_space(text, position)
    key, equals, value = part.strip().partition("=")
    if not equals:
        key, value = next(iter(options)), key
    key, written = key.strip(), value.strip()
    if key not in options:
        raise TowerSyntaxError(f"{name} has no option '{key}' (it has {', '.join(options)})", text, position)
    try:
        return options[key].field, options[key].read(written)
    except ValueError as error:
        at = position + len(part.strip()) - len(value.lstrip())
        raise TowerSyntaxError(str(error), text, at) from None
