"""What a run holds of one checkpoint, as codes: each tensor's decoders up to a level as one affine code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rct_ray.rebuild.errors import RebuildError
from rct_ray.results import Run
from rct_ray.results.tables import entries
from rct_ray.transform.affine_code import AffineCode, Metric
from rct_ray.transform.basis import Array, Basis, orthonormalise
from rct_ray.transform.stages import FixedStage, PCAStage, RowStage, Stage, SVDStage
from rct_ray.transform.tower_language import parse_tower

_BASES = 4


class StoredCodes:
    """The towers over the tensors of one checkpoint of a run, climbed to one level.

    Parameters
    ----------
    run : Run
    label : str or None
        The checkpoint's name in the tables; needed only if the run is over several.
    level : int
        0 for the weights themselves.

    Attributes
    ----------
    run : Run
    label : str
    level : int
    member : mapping
        What the manifest says of the checkpoint.
    figures : dict of str to mapping
        By tensor, the row of `levels` for this level.
    norms : dict of str to float
        By tensor, the Frobenius norm of its weights.

    Raises
    ------
    RebuildError
        If there is no such checkpoint or level, if the level is no affine code of single rows, or if the run
        drew a sample of the rows.
    """

    def __init__(self, run: Run, label: str | None, level: int) -> None:
        self.run, self.level = run, level
        self.member = member_of(run, label)
        self.label: str = self.member["label"]
        refuse_sample(run)
        configuration = run.manifest["configuration"]
        self._stages = parse_tower(configuration["tower"])[:level]
        self._metric: Metric = configuration["metric"]
        self._check_level(len(parse_tower(configuration["tower"])))
        self.figures = {
            row["name"]: row
            for row in run.levels_of(scope="tensor", checkpoint=self.label).to_pylist()
            if row["level"] == level
        }
        self.norms = self._norms()
        self._matrices = self._places()
        self._bases: dict[int, Basis] = {}

    @property
    def digest(self) -> str:
        """SHA-256 of the run's manifest, which lists the digest of every table."""
        return run_digest(self.run)

    def code(self, name: str, width: int) -> AffineCode:
        """The code of one tensor, from rows of weights to this level and back."""
        code = AffineCode.of_frame(np.eye(width)) if not self._stages else None
        for number, stage in enumerate(self._stages, start=1):
            encoder, decoder, mean = self._affine(stage, number, name, width)
            code = _first(encoder, decoder, mean) if code is None else _then(code, encoder, decoder, mean)
        assert code is not None
        return code

    def _affine(self, stage: Stage, number: int, name: str, width: int) -> tuple[Array, Array, Array]:
        """Encoder, decoder and mean of one stage, as `transform.climb` made them."""
        if number == 1 and isinstance(stage, FixedStage):
            basis = self._basis(stage, width)
            if self._metric == "isometric":
                return basis.frame, basis.frame.T, np.zeros(width)
            return basis.frame @ basis.unmixing(), basis.functions, np.zeros(width)
        decoder = self._matrix(name, number, "components")
        if isinstance(stage, PCAStage):
            return decoder.T, decoder, self._matrix(name, number, "mean")[0]
        mean = np.zeros(decoder.shape[1])
        if self._metric == "isometric" or isinstance(stage, SVDStage):
            return decoder.T, decoder, mean
        # Functions that are not orthonormal: least squares is their pseudo-inverse.
        basis = orthonormalise(decoder)
        return basis.frame @ basis.unmixing(), decoder, mean

    def _basis(self, stage: FixedStage, width: int) -> Basis:
        """A fixed basis, kept for a few widths: tensors of a block take turns in them."""
        if width not in self._bases:
            if len(self._bases) >= _BASES:
                self._bases.clear()
            self._bases[width] = stage.basis(width)
        return self._bases[width]

    def _matrix(self, name: str, level: int, kind: str) -> Array:
        place = self._matrices.get((name, level, kind))
        if place is None:
            raise RebuildError(
                f"{self.run.path} holds no {kind} of level {level} of {name!r}: run it again with this version"
            )
        row = self.run.decoders.slice(place, 1).combine_chunks()
        shape = row["rows"][0].as_py(), row["columns"][0].as_py()
        # Mapped from the file, not copied: the decoders of a large run need not fit into memory.
        return np.asarray(entries(row["values"].chunk(0).flatten()).reshape(shape))

    def _places(self) -> dict[tuple[str, int, str], int]:
        """Where each matrix lies in the decoders, of those that are needed."""
        columns = [
            self.run.decoders[key].to_pylist() for key in ("checkpoint", "scope", "name", "level", "kind")
        ]
        return {
            (name, level, kind): place
            for place, (checkpoint, scope, name, level, kind) in enumerate(zip(*columns, strict=True))
            if checkpoint == self.label and scope == "tensor" and level <= self.level
        }

    def _norms(self) -> dict[str, float]:
        tensors = self.run.tensors
        columns = [tensors[key].to_pylist() for key in ("checkpoint", "status", "name", "norm")]
        return {
            name: norm
            for checkpoint, status, name, norm in zip(*columns, strict=True)
            if checkpoint == self.label and status == "used"
        }

    def _check_level(self, top: int) -> None:
        if not 0 <= self.level <= top:
            raise RebuildError(
                f"{self.run.path} has no level {self.level}: its tower has levels 0 to {top} "
                f"({self.run.manifest['configuration']['tower']})"
            )
        for number, stage in enumerate(self._stages, start=1):
            if isinstance(stage, RowStage):
                raise RebuildError(
                    f"level {self.level} of {self.run.path} can't be rebuilt: {stage.spec} (level {number}) codes "
                    f"more than single rows, and its codes are not stored; levels 0 to {number - 1} can"
                )


def member_of(run: Run, label: str | None) -> Mapping[str, Any]:
    """What the manifest says of one checkpoint.

    Raises
    ------
    RebuildError
        If there is no such checkpoint, or several and none is named.
    """
    members: Sequence[Mapping[str, Any]] = run.manifest["checkpoints"]
    labels = [member["label"] for member in members]
    if label is None and len(members) == 1:
        return members[0]
    listed = ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
    if label is None:
        raise RebuildError(
            f"{run.path} is over {len(labels)} checkpoints ({listed}): say which by --checkpoint"
        )
    if label not in labels:
        raise RebuildError(f"{run.path} has no checkpoint {label!r}; it has {listed}")
    return members[labels.index(label)]


def refuse_sample(run: Run) -> None:
    """Raise if the run drew rows: its tables then say nothing of the others."""
    if run.manifest["configuration"]["sample_rows"] is not None:
        raise RebuildError(
            f"{run.path} is of a sample of rows (--sample-rows), and its tables say nothing of the others: "
            "run it again on all rows"
        )


def run_digest(run: Run) -> str:
    """SHA-256 of the run's manifest, which lists the digest of every table."""
    return hashlib.sha256((run.path / "manifest.json").read_bytes()).hexdigest()


def _first(encoder: Array, decoder: Array, mean: Array) -> AffineCode:
    return AffineCode(encoder, decoder, mean @ encoder, mean)


def _then(code: AffineCode, encoder: Array, decoder: Array, mean: Array) -> AffineCode:
    """One more step; see `AffineCode.then`."""
    return AffineCode(
        encoder=code.encoder @ encoder,
        decoder=decoder @ code.decoder,
        origin=(code.origin + mean) @ encoder,
        offset=mean @ code.decoder + code.offset,
    )
