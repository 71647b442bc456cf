"""The stages a tower is built from; `tower_language` reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from rct_ray.transform.basis import (
    Basis,
    BasisError,
    dct_basis,
    default_components,
    gaussian_basis,
    haar_basis,
    random_basis,
)

RowOrder: TypeAlias = Literal["none", "svd"]
Order: TypeAlias = Literal["none", "svd", "assign"]
Fit: TypeAlias = Literal["fixed", "shared"]
RowFit: TypeAlias = Literal["free", "curve_fit"]
Share: TypeAlias = Literal["tensor", "width"]


@dataclass(frozen=True, slots=True)
class _Components:
    """A stage with K components, by default one for 32 columns."""

    name: ClassVar[str]
    n_components: int | None = None

    def components_for(self, width: int) -> int:
        """K: as asked for, or d / 32."""
        return default_components(width) if self.n_components is None else self.n_components

    @property
    def spec(self) -> str:
        """The stage as it is written in a tower."""
        return _written(self.name, self.n_components, {})


@dataclass(frozen=True, slots=True)
class FixedStage(_Components):
    """A basis that depends on the number of columns alone, and so costs no parameters of its own."""

    make: ClassVar[Callable[..., Basis]]

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
        return _written(self.name, self.n_components, _width_option(self.relative_width))


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
class RandomStage(FixedStage):
    """K orthonormal directions drawn at random, the same for every matrix of a width: a control."""

    name: ClassVar[str] = "random"
    make: ClassVar[Callable[..., Basis]] = staticmethod(random_basis)


@dataclass(frozen=True, slots=True)
class LearnedStage(_Components):
    """A linear code that is learned from the d x d moments of the rows it meets."""


@dataclass(frozen=True, slots=True)
class SVDStage(LearnedStage):
    """The K leading right singular vectors of the rows themselves (about zero); charged K * d.

    With `share="width"` those of all rows of a width together serve each of its matrices.
    """

    name: ClassVar[str] = "svd"
    share: Share = "tensor"

    @property
    def spec(self) -> str:
        """The stage as it is written in a tower."""
        return _written(self.name, self.n_components, {"share": self.share} if self.share != "tensor" else {})


@dataclass(frozen=True, slots=True)
class PlacedGaussianStage(LearnedStage):
    """Gaussians along the columns in an order of their own, or at centres and widths of their own, or both.

    Naming the order of d columns costs log2(d!) bits, and the signs of `assign` one bit a column; centres and
    widths that a matrix's rows share (`fit="shared"`) are charged 2 K.
    """

    name: ClassVar[str] = "gaussian"
    relative_width: float = 1.0
    order: Order = "none"
    signs: bool = True
    fit: Fit = "fixed"

    def basis(self, width: int) -> Basis:
        """The Gaussians along the order, before centres and widths are fitted."""
        return GaussianStage(self.n_components, self.relative_width).basis(width)

    @property
    def signed(self) -> bool:
        """Whether columns may be turned about."""
        return self.signs and self.order == "assign"

    @property
    def spec(self) -> str:
        """The stage as it is written in a tower."""
        options = _width_option(self.relative_width)
        if self.order != "none":
            options["order"] = self.order
        if self.order == "assign" and not self.signs:
            options["signs"] = "no"
        if self.fit != "fixed":
            options["fit"] = self.fit
        return _written(self.name, self.n_components, options)


@dataclass(frozen=True, slots=True)
class PCAStage:
    """Principal components about the mean, as few as reach `threshold` of the variance."""

    name: ClassVar[str] = "pca"
    threshold: float = 0.95

    @property
    def spec(self) -> str:
        """The stage as it is written in a tower."""
        return f"{self.name}({shortest(self.threshold)})"


class RowStage:
    """A stage whose code is no linear function of single rows, so that moments do not tell what it loses."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class RowGaussianStage(_Components, RowStage):
    """Gaussians along the rows: each column of the code is a signal over the rows, ordered first or not.

    K is one for 32 rows unless said; naming an order of n rows costs log2(n!) bits.
    """

    name: ClassVar[str] = "gaussian"
    relative_width: float = 1.0
    order: RowOrder = "none"

    @property
    def spec(self) -> str:
        """The stage as it is written in a tower."""
        ordered = {"order": self.order} if self.order != "none" else {}
        return _written(
            self.name, self.n_components, {**_width_option(self.relative_width), "axis": "rows", **ordered}
        )


@dataclass(frozen=True, slots=True)
class FreeGaussianStage(_Components, RowStage):
    """Gaussians whose amplitudes, centres and widths are each row's own: a code of 3 K numbers a row."""

    name: ClassVar[str] = "gaussian"
    relative_width: float = 1.0
    fit: RowFit = "free"

    @property
    def spec(self) -> str:
        """The stage as it is written in a tower."""
        return _written(self.name, self.n_components, {**_width_option(self.relative_width), "fit": self.fit})


@dataclass(frozen=True, slots=True)
class QuantizeStage(RowStage):
    """Each component of the code rounded to 2^bits evenly spaced values, charged what these take when coded."""

    name: ClassVar[str] = "quantize"
    bits: int = 4

    @property
    def spec(self) -> str:
        """The stage as it is written in a tower."""
        return f"{self.name}({self.bits})"


Stage: TypeAlias = FixedStage | LearnedStage | PCAStage | RowGaussianStage | FreeGaussianStage | QuantizeStage


def first_coordinates(stage: Stage, width: int) -> int:
    """Coordinates that a tower starts from: amplitudes in a fixed basis, else the columns themselves."""
    return stage.components_for(width) if isinstance(stage, FixedStage) else width


def needs_rows(stages: Iterable[Stage]) -> bool:
    """Whether a tower can't be climbed on moments alone."""
    return any(isinstance(stage, RowStage) for stage in stages)


def shared_over_width(stage: Stage) -> bool:
    """Whether a stage is learned from all matrices of a width, and so has to wait for the last."""
    return isinstance(stage, SVDStage) and stage.share == "width"


def shortest(number: float) -> str:
    """The fewest digits that read back as the same number."""
    brief = f"{number:g}"
    return brief if float(brief) == number else repr(float(number))


def _width_option(relative_width: float) -> dict[str, str]:
    return {"width": shortest(relative_width)} if relative_width != 1 else {}


def _written(name: str, n_components: int | None, options: dict[str, str]) -> str:
    """A stage with the options that are not as usual."""
    if n_components is not None and not options and name != "gaussian":
        return f"{name}({n_components})"
    given = {"K": str(n_components), **options} if n_components is not None else options
    inside = ", ".join(f"{key}={value}" for key, value in given.items())
    return f"{name}({inside})" if inside else name
