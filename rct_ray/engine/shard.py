"""The shard function: what every engine runs, wherever it runs it."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from rct_ray.checkpoint import RowReader
from rct_ray.engine.errors import Interrupted
from rct_ray.engine.plan import Shard
from rct_ray.transform.encode import Encoder, Summary, Weights
from rct_ray.transform.moments import RowMoments
from rct_ray.transform.stages import FixedStage, Stage

# Under this many rows a GEMM no longer amortises its call; over it, memory is the only thing that grows.
_FEWEST_ROWS = 64
# d x d moments are updated once a block, which only pays over more rows.
_FEWEST_ROWS_WITH_COLUMNS = 512


@dataclass(frozen=True, slots=True)
class ShardTask:
    """What a worker has to know besides the shard."""

    first_stage: Stage
    block_bytes: int
    #: Seed of the shuffle, where the null is to be measured on the weights' own entries.
    shuffle: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ShardResult:
    """Moments of one shard, and what they took."""

    index: int
    moments: RowMoments
    nbytes: int
    seconds_read: float
    seconds_encode: float
    seconds: float
    worker: str
    attempt: int = 0


def encode_shard(
    shard: Shard,
    task: ShardTask,
    worker: str = "",
    stopping: Callable[[], bool] = lambda: False,
    *,
    attempt: int = 0,
) -> ShardResult:
    """Read a shard block by block into one reused buffer, and return its moments.

    Parameters
    ----------
    shard : Shard
    task : ShardTask
    worker : str
        Name for the table `shards`.
    stopping : callable
        Asked before each block.
    attempt : int
        How often the shard's worker died before.

    Raises
    ------
    CheckpointError
        If the file changed, shrank or can't be read.
    Interrupted
        If `stopping()` became true.
    """
    begun = time.perf_counter()
    encoder = _encoder(task.first_stage, shard.entry.width, shard.columns, shard.single, shard.summary)
    moments = encoder.start()
    shuffled = None if task.shuffle is None else encoder.start()
    generator = _shuffler(task.shuffle or 0, shard)
    reading = encoding = 0.0
    with RowReader(shard.entry) as reader:
        blocks = _blocks(reader, shard, task.block_bytes)
        while not stopping():
            started = time.perf_counter()
            block = next(blocks, None)
            read = time.perf_counter()
            reading += read - started
            if block is None:
                break
            moments.add(block)
            if shuffled is not None:
                shuffled.add(generator.permuted(block.reshape(-1)).reshape(block.shape))
            encoding += time.perf_counter() - read
        else:
            raise Interrupted
    known = moments.moments()
    if shuffled is not None:
        known = replace(known, shuffled=shuffled.moments())
    seconds = time.perf_counter() - begun
    return ShardResult(shard.index, known, shard.nbytes, reading, encoding, seconds, worker, attempt)


def _shuffler(seed: int, shard: Shard) -> np.random.Generator:
    """The same for a shard wherever it is read; entries are shuffled among the rows that are read together."""
    name = zlib.crc32(shard.entry.name.encode())
    return np.random.default_rng(np.random.SeedSequence((seed, name, shard.start)))


def _blocks(reader: RowReader, shard: Shard, block_bytes: int) -> Iterator[Weights]:
    width, dtype = shard.entry.width, shard.entry.value_dtype
    fewest = _FEWEST_ROWS_WITH_COLUMNS if shard.columns else _FEWEST_ROWS
    step = min(max(fewest, block_bytes // (width * dtype.itemsize)), shard.n_rows)
    buffer = np.empty((step, width), dtype)
    if shard.rows is not None:
        for first in range(0, len(shard.rows), step):
            yield reader.read_rows(shard.rows[first : first + step], buffer)
        return
    for start in range(shard.start, shard.stop, step):
        yield reader.read(start, min(start + step, shard.stop), buffer)


@lru_cache(maxsize=64)
def _encoder(stage: Stage, width: int, columns: bool, single: bool, summary: Summary) -> Encoder:
    """The encoder of a width; a worker makes it once and keeps it."""
    frame = stage.basis(width).frame if isinstance(stage, FixedStage) else None
    return Encoder(frame, columns=columns, single=single, summary=summary)
