"""The stages a tower is built from, and the language they are written in.

``gaussian > pca(0.95) > pca(0.95)`` reads: fit each row of weights with Gaussians, then principal components
of the amplitudes, then principal components of those scores.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from rct_ray.transform.basis import (
    Basis,
    BasisError,
    dct_basis,
    default_components,
    gaussian_basis,
    haar_basis,
)


class TowerSyntaxError(ValueError):
    """A tower that can't be read; the message points at the character."""

    def __init__(self, fault: str, text: str, position: int) -> None:
        self.position = position
        message = f"{fault}, at character {position + 1} of the tower: {text[:position]}→{text[position:]}"
        super().__init__(re.sub(r"\s", " ", message))


@dataclass(frozen=True, slots=True)
class FixedStage:
    """A basis that depends on the number of columns alone, and so costs no parameters of its own."""

    name: ClassVar[str]
    make: ClassVar[Callable[..., Basis]]
    n_components: int | None = None

    def components_for(self, width: int) -> int:
        """K: as asked for, or d / 32."""
        return default_components(width) if self.n_components is None else self.n_components

    def basis(self, width: int) -> Basis:
        """The basis on `width` columns, K <= width.

        Raises
        ------
        BasisError
            If K > width.
        """
        count = self.components_for(width)
        if count > width:
            raise BasisError(
                f"{self.spec} wants {count} components of {width} columns: K must not exceed the width"
            )
        return self._make(width, count)

    def _make(self, width: int, count: int) -> Basis:
        return type(self).make(width, count)

    @property
    def spec(self) -> str:
        """The stage as it is written in a tower."""
        return self.name if self.n_components is None else f"{self.name}({self.n_components})"


@dataclass(frozen=True, slots=True)
class GaussianStage(FixedStage):
    """Gaussians at linspace(0, d-1, K), sigma = relative_width * d / K."""

    name: ClassVar[str] = "gaussian"
    make: ClassVar[Callable[..., Basis]] = staticmethod(gaussian_basis)
    relative_width: float = 1.0

    def _make(self, width: int, count: int) -> Basis:
        return gaussian_basis(width, count, self.relative_width)

    @property
    def spec(self) -> str:
        """The stage as it is written in a tower."""
        options = [] if self.n_components is None else [f"K={self.n_components}"]
        options += [f"width={_shortest(self.relative_width)}"] if self.relative_width != 1 else []
        return f"{self.name}({', '.join(options)})" if options else self.name


@dataclass(frozen=True, slots=True)
class DCTStage(FixedStage):
    """The K lowest frequencies of the orthonormal DCT-II."""

    name: ClassVar[str] = "dct"
    make: ClassVar[Callable[..., Basis]] = staticmethod(dct_basis)


@dataclass(frozen=True, slots=True)
class HaarStage(FixedStage):
    """The K coarsest Haar steps."""

    name: ClassVar[str] = "haar"
    make: ClassVar[Callable[..., Basis]] = staticmethod(haar_basis)


@dataclass(frozen=True, slots=True)
class SVDStage:
    """The K leading right singular vectors of the rows themselves (about zero); charged K * d."""

    name: ClassVar[str] = "svd"
    n_components: int | None = None

    def components_for(self, width: int) -> int:
        """K: as asked for, or d / 32."""
        return default_components(width) if self.n_components is None else self.n_components

    @property
    def spec(self) -> str:
        """The stage as it is written in a tower."""
        return "svd" if self.n_components is None else f"svd({self.n_components})"


@dataclass(frozen=True, slots=True)
class PCAStage:
    """Principal components about the mean, as few as reach `threshold` of the variance."""

    name: ClassVar[str] = "pca"
    threshold: float = 0.95

    @property
    def spec(self) -> str:
        """The stage as it is written in a tower."""
        return f"pca({_shortest(self.threshold)})"


Stage: TypeAlias = FixedStage | SVDStage | PCAStage

DEFAULT_TOWER = "gaussian > pca(0.95) > pca(0.95) > pca(0.95)"

# What each stage takes: option name -> (field, how to read it). The first is what a bare value means.
_COMPONENTS = {"K": "n_components"}
_STAGES: dict[str, tuple[type[FixedStage] | type[SVDStage] | type[PCAStage], dict[str, str]]] = {
    "gaussian": (GaussianStage, {**_COMPONENTS, "width": "relative_width"}),
    "dct": (DCTStage, _COMPONENTS),
    "haar": (HaarStage, _COMPONENTS),
    "svd": (SVDStage, _COMPONENTS),
    "pca": (PCAStage, {"threshold": "threshold"}),
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
        stages.append(_stage(match, text))
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


def _shortest(number: float) -> str:
    """The fewest digits that read back as the same number."""
    brief = f"{number:g}"
    return brief if float(brief) == number else repr(float(number))


def _skip_space(text: str, position: int) -> int:
    return position + len(text[position:]) - len(text[position:].lstrip())


def _stage(match: re.Match[str], text: str) -> Stage:
    name = match["name"]
    if name not in _STAGES:
        close = difflib.get_close_matches(name, _STAGES, n=1)
        hint = f"did you mean {close[0]}?" if close else "known: " + ", ".join(_STAGES)
        raise TowerSyntaxError(f"unknown stage '{name}' ({hint})", text, match.start("name"))
    kind, options = _STAGES[name]
    values: dict[str, int | float] = {}
    if match["call"] and match["options"].strip():
        position = match.start("options")
        for part in match["options"].split(","):
            field, value = _option(name, part, position, options, text)
            if field in values:
                raise TowerSyntaxError("given twice", text, _skip_space(text, position))
            values[field] = value
            position += len(part) + 1
    return kind(**values)  # type: ignore[arg-type]


def _option(
    name: str, part: str, position: int, options: dict[str, str], text: str
) -> tuple[str, int | float]:
    position = _skip_space(text, position)
    key, equals, value = part.strip().partition("=")
    if not equals:
        key, value = next(iter(options)), key
    key, written = key.strip(), value.strip()
    if key not in options:
        raise TowerSyntaxError(f"{name} has no option '{key}' (it has {', '.join(options)})", text, position)
    at = position + len(part.strip()) - len(value.lstrip())
    return options[key], _value(options[key], written, text, at)


def _value(field: str, written: str, text: str, position: int) -> int | float:
    if field == "n_components":
        if not re.fullmatch(r"[0-9]{1,9}", written) or int(written) < 1:
            raise TowerSyntaxError(f"K must be a whole number of at least 1, not '{written}'", text, position)
        return int(written)
    try:
        number = float(written)
    except ValueError:
        raise TowerSyntaxError(f"{field} must be a number, not '{written}'", text, position) from None
    if field == "threshold" and not 0 < number <= 1:
        raise TowerSyntaxError(f"threshold must be above 0 and at most 1, not {written}", text, position)
    if field == "relative_width" and not 0 < number <= 1000:
        raise TowerSyntaxError(
            f"width must be above 0 (in units of d/K) and at most 1000, not {written}", text, position
        )
    return number
