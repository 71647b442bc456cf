"""Several checkpoints as one run: opened, put in order, measured together; a bad one does not stop the rest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from rct_ray.checkpoint import Checkpoint, FileInfo
from rct_ray.config import RunConfig
from rct_ray.engine.collect import Collector, Work, recorded
from rct_ray.engine.measure import Climber, Measured, measure
from rct_ray.engine.notices import CHECKPOINT_DONE, CHECKPOINT_FAILED, Notice
from rct_ray.engine.phases import Phases
from rct_ray.engine.plan import Plan, Shard
from rct_ray.engine.shard import ShardResult, ShardTask
from rct_ray.engine.units import Unit

if TYPE_CHECKING:
    from rct_ray.engine import Engine
    from rct_ray.results import RunWriter
    from rct_ray.transform.leading import LeadingMoments

# Wraps the results of a plan as they come, to show how far it is.
Progress: TypeAlias = Callable[[str, Plan, Iterable[ShardResult]], Iterable[ShardResult]]
Say: TypeAlias = Callable[[str], None]


class SweepError(ValueError):
    """None of several checkpoints could be measured."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A checkpoint that could not be measured, and why."""

    path: str
    error: Exception

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types, for the manifest."""
        return {"path": self.path, "error": type(self.error).__name__, "reason": str(self.error)}


@dataclass(slots=True)
class Member:
    """One checkpoint of the run.

    Attributes
    ----------
    label : str
        Its name in the tables.
    plan : Plan
    seconds : dict of str to float
        The driver's, by phase, once it is measured.
    """

    label: str
    plan: Plan
    seconds: dict[str, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types, for the manifest."""
        checkpoint = self.plan.checkpoint
        return {
            "label": self.label,
            "path": os.path.abspath(checkpoint.path),  # noqa: PTH100  (keeps links as they are)
            "step": checkpoint.step,
            "metadata": checkpoint.metadata,
            "files": [{"path": file.path, **identity_of(file)} for file in checkpoint.files],
            "seconds": self.seconds or {},
        }


class Sweep:
    """The checkpoints of a run, those that can be opened in order of their steps.

    Parameters
    ----------
    paths : sequence of str
        One checkpoint each. If there is but one, nothing is borne: what is wrong with it is raised.
    make_plan : callable
        From a path to its plan.
    notice : callable
        Hears of checkpoints that are done or failed.

    Attributes
    ----------
    members : list of Member
        Checkpoints of known step come first, by step; the rest, and those of equal step, as given.
    failures : list of Failure

    Raises
    ------
    SweepError
        If none of several can be opened.
    """

    def __init__(self, paths: Sequence[str], make_plan: Callable[[str], Plan], notice: Notice) -> None:
        self.alone = len(paths) == 1
        self.failures: list[Failure] = []
        self._notice = notice
        plans = []
        for path in paths:
            try:
                plans.append(make_plan(path))
            except ValueError as error:
                self._bear(path, error)
        if not plans:
            self.tell_failures()
        self._require_some(plans)
        plans.sort(key=_by_step)
        labels = _labels([plan.checkpoint for plan in plans])
        self.members = [Member(label, plan) for label, plan in zip(labels, plans, strict=True)]

    def tell_failures(self) -> None:
        """Tell of the checkpoints that could not be opened; an engine can count them once it has begun."""
        for failure in self.failures:
            self._notice(CHECKPOINT_FAILED, failure.as_dict())

    def identity(self) -> dict[str, Any]:
        """What an unfinished run must have in common with the one that goes on with it, of its inputs.

        Of a sweep, only that it is one: its records are kept by what they are of, so that it may go on with
        checkpoints that have come since, or without one that has gone.
        """
        if not self.alone:
            return {"sweep": True}
        files = self.members[0].plan.checkpoint.files
        return {"file": {file.path: identity_of(file) for file in files}}

    def works(
        self, writer: RunWriter, make_units: Callable[[Sequence[Shard]], list[Unit]], say: Say | None
    ) -> list[Work]:
        """The units of all checkpoints, with those that an earlier run finished."""
        works = []
        for number, member in enumerate(self.members):
            units = [replace(unit, checkpoint=number) for unit in make_units(member.plan.shards)]
            records = writer.units(_key(member.plan.checkpoint))
            works.append(Work(member.label, units, records, recorded(units, records)))
        done, total = sum(len(work.earlier) for work in works), sum(len(work.units) for work in works)
        if done and say is not None:
            name = works[0].label if self.alone else f"{len(works)} checkpoints"
            say(f"{name}: {done} of {total} units were done before and are skipped")
        return works

    def measure(
        self,
        works: Sequence[Work],
        config: RunConfig,
        engine: Engine,
        writer: RunWriter,
        progress: Progress | None,
    ) -> None:
        """Measure all checkpoints and write their tables, with their units scheduled together.

        Raises
        ------
        SweepError
            If none of several can be measured.
        """
        task = ShardTask(config.stages[0], config.block_bytes)
        left = [unit for work in works for unit in work.left]
        collector = Collector(works, engine.run(left, task), self._notice)
        if not self.alone and any(
            "randomized" in member.plan.pca_methods.values() for member in self.members
        ):
            # Their towers need the workers for passes of their own, which have to be free by then.
            collector.drain()
        measured: list[Member] = []
        for number, member in enumerate(self.members):
            results: Iterable[ShardResult] = collector.results(number)
            if progress is not None:
                count = "" if self.alone else f" ({number + 1} of {len(self.members)})"
                results = progress(member.label + count, member.plan, results)
            try:
                self._measure_one(member, config, engine, writer, results)
            except ValueError as error:
                self._bear(member.plan.checkpoint.path, error)
                self._notice(CHECKPOINT_FAILED, self.failures[-1].as_dict())
                collector.give_up(number, error)
            else:
                measured.append(member)
        collector.drain()
        self._require_some(measured)
        self.members = measured

    def _measure_one(
        self,
        member: Member,
        config: RunConfig,
        engine: Engine,
        writer: RunWriter,
        results: Iterable[ShardResult],
    ) -> None:
        from rct_ray.tables import write_measured

        phases, part = Phases(), None if self.alone else member.label
        towers = _measure(member.plan, config, engine, phases.each("wait", results), phases)
        with phases.during("write"):
            write_measured(writer, member.label, part, member.plan, phases.each("tower", towers))
        member.seconds = phases.rounded()
        about = {"checkpoint": member.label, "step": member.plan.checkpoint.step}
        self._notice(CHECKPOINT_DONE, {**about, "seconds": member.seconds})

    def _bear(self, path: str, error: ValueError) -> None:
        """Go on without a checkpoint, if it is that which is wrong, and there are others."""
        if self.alone or not _is_of_a_checkpoint(error):
            raise error
        self.failures.append(Failure(path, error))

    def _require_some(self, left: Sequence[object]) -> None:
        if not left:
            first = self.failures[0]
            said = str(first.error) if first.path in str(first.error) else f"{first.path}: {first.error}"
            raise SweepError(
                f"none of {len(self.failures)} checkpoints could be measured; the first: {said}"
            ) from first.error


def identity_of(file: FileInfo) -> dict[str, Any]:
    """What tells a file from another of the same path, as plain JSON types."""
    return {"bytes": file.size, "mtime_ns": file.mtime_ns, "header_sha256": file.header_sha256}


def _is_of_a_checkpoint(error: ValueError) -> bool:
    """Whether an error is what this package says of bad input, and not of the run directory."""
    from rct_ray.results import ResultsError

    return type(error).__module__.startswith("rct_ray.") and not isinstance(error, ResultsError)


def _by_step(plan: Plan) -> tuple[bool, int]:
    step = plan.checkpoint.step
    return step is None, step or 0


def _labels(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Names, or whole paths where names are not enough to tell the checkpoints apart."""
    names = [checkpoint.name for checkpoint in checkpoints]
    if len(set(names)) == len(names):
        return names
    return [os.path.realpath(checkpoint.path) for checkpoint in checkpoints]


def _key(checkpoint: Checkpoint) -> str:
    """Name for the records of a checkpoint's units: that of no other checkpoint, nor of this one changed."""
    files = [[file.path, *identity_of(file).values()] for file in checkpoint.files]
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16]


def _measure(
    plan: Plan, config: RunConfig, engine: Engine, results: Iterable[ShardResult], phases: Phases
) -> Iterator[Measured]:
    def wide(shards: Sequence[Shard], threshold: float, seed: int) -> LeadingMoments:
        from rct_ray.engine.wide import leading_moments

        return leading_moments(engine, shards, config.stages[0], threshold, seed)

    climber = Climber(plan, config.stages, config.metric, config.seed, wide, phases)
    return measure(climber, results, strict=config.strict)
