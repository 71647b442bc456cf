"""A job's log as it grows, to the end of the job."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from rct_ray.submit.client import Cluster, JobState
from rct_ray.submit.errors import SubmitError

# How long a cluster may be silent: a dashboard that restarts, a tunnel that is opened again.
PATIENCE_S = 120.0
_PAUSE_S = 1.0
# A stream that says nothing for so long may have lost its other end without a word.
_SILENCE_S = 60.0


def follow(
    cluster: Cluster, job: str, write: Callable[[str], Any], *, patience: float = PATIENCE_S
) -> JobState | None:
    """Write a job's log as it comes, until the job has ended.

    The stream of a log may end long before its job (ray-project/ray#60665): a proxy gives up, a dashboard
    restarts. So its end says nothing; the job's state does, and until that is final the stream is opened anew. It
    begins with the log's first character every time, and what was written before is left out.

    Parameters
    ----------
    cluster : Cluster
    job : str
    write : callable
        Gets pieces of the log.
    patience : float
        Seconds without an answer from the cluster before it is given up.

    Returns
    -------
    JobState or None
        The state in which the job ended; None if the cluster no longer answers.

    Raises
    ------
    SubmitError
        If there is no such job to begin with.
    """
    cluster.state(job)
    written = 0

    def pass_on(text: str, position: int) -> None:
        nonlocal written
        fresh = text[max(0, written - position) :]
        if fresh:
            write(fresh)
            written = position + len(text)

    heard = time.monotonic()
    while True:
        begun = written
        asyncio.run(_stream(cluster.client, job, pass_on))
        try:
            state = cluster.state(job)
            if state.ended:
                pass_on(cluster.logs(job), 0)
                return state
            heard = time.monotonic()
        except SubmitError:
            if time.monotonic() - heard > patience:
                return None
        if written == begun:
            time.sleep(_PAUSE_S)


async def _stream(client: Any, job: str, pass_on: Callable[[str, int], None]) -> None:
    """Pass on the pieces of one stream with their positions, however it ends."""
    import aiohttp

    position = 0
    try:
        async with asyncio.timeout(_SILENCE_S) as silence:
            async for text in client.tail_job_logs(job):
                pass_on(text, position)
                position += len(text)
                silence.reschedule(asyncio.get_running_loop().time() + _SILENCE_S)
    except (RuntimeError, OSError, aiohttp.ClientError):
        # The state of the job says whether this was its end.
        return
