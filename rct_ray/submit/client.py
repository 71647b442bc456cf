"""The Jobs API of a cluster: sending a job, asking for its state, stopping it."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rct_ray.submit.address import check_listening
from rct_ray.submit.errors import SubmitError
from rct_ray.submit.wheel import build_wheel, requirements

# What a run may take to end by itself once it is stopped; Ray would kill it after 3 s.
STOP_S = 30
# A dashboard knows its nodes some seconds after it starts.
_NODES_S = 10.0
# For one answer.
_ANSWER_S = 120.0


@dataclass(frozen=True, slots=True)
class JobState:
    """Where a job is.

    Attributes
    ----------
    status : str
        PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
    message : str
        Ray's own words.
    driver_exit_code : int or None
        Exit status of the command, once it has ended by itself.
    entrypoint : str
    metadata : mapping
    """

    status: str
    message: str
    driver_exit_code: int | None
    entrypoint: str
    metadata: Mapping[str, str]

    @property
    def ended(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")

    @property
    def exit_status(self) -> int | None:
        """The command's own exit status; 130 where it was stopped, 1 where it never ran or was killed."""
        if not self.ended:
            return None
        if self.status == "STOPPED":
            return 130
        if self.status == "SUCCEEDED":
            return 0
        code = self.driver_exit_code
        return code if code is not None and 0 < code < 256 else 1


class Cluster:
    """A cluster's Jobs API.

    Parameters
    ----------
    address : str
        URL, as `choose_address` gives it.

    Raises
    ------
    SubmitError
        If no Jobs API answers there, or its client is not installed.
    """

    def __init__(self, address: str) -> None:
        check_listening(address)
        self.address = address
        self.client = _client(address)

    def nodes(self) -> list[dict[str, Any]]:
        """`hostname` and `ip` of the nodes that are alive; none if the cluster doesn't say."""
        deadline = time.monotonic() + _NODES_S
        while True:
            try:
                # The client has no public method for it; this is what the dashboard's own page asks.
                answer = self.client._do_request("GET", "/nodes?view=summary").json()
                nodes = [node["raylet"] for node in answer["data"]["summary"]]
                found = [
                    {"hostname": node["nodeManagerHostname"], "ip": node["nodeManagerAddress"]}
                    for node in nodes
                    if node.get("state") == "ALIVE"
                ]
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                return []
            if found or time.monotonic() > deadline:
                return found
            time.sleep(0.5)

    def submit(
        self,
        arguments: Sequence[str],
        metadata: Mapping[str, str],
        *,
        working_dir: str | None = None,
        install: bool = False,
    ) -> str:
        """Send a command line of ours, and the code it runs.

        The driver runs on the head: a job that asks for resources of its own may land on a node that is
        taken away.

        Parameters
        ----------
        arguments : sequence of str
            What follows `rct-ray`.
        metadata : mapping
            Shown by the dashboard and by `status`.
        working_dir : str, optional
            A checkout whose code the job runs, instead of the installed package's.
        install : bool
            Whether nodes install what the package requires, from an index.

        Returns
        -------
        str
            The job's ID.
        """
        with tempfile.TemporaryDirectory() as folder:
            wheel = build_wheel(Path(folder), code=working_dir is None)
            environment: dict[str, Any] = {
                "py_modules": [str(wheel)],
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S)},
            }
            if working_dir is not None:
                environment["working_dir"] = _checkout(working_dir)
            if install:
                environment["pip"] = requirements()
            with self._explained("send the job to"):
                return str(
                    self.client.submit_job(
                        entrypoint=_entrypoint(arguments, own_directory=working_dir is not None),
                        runtime_env=environment,
                        metadata=dict(metadata),
                    )
                )

    def state(self, job: str) -> JobState:
        """Where a job is.

        Raises
        ------
        SubmitError
            If there is no such job.
        """
        with self._explained(f"ask for {job} at", job):
            info = self.client.get_job_info(job)
        return JobState(
            str(info.status.value),
            info.message or "",
            info.driver_exit_code,
            info.entrypoint,
            info.metadata or {},
        )

    def logs(self, job: str) -> str:
        """All that a job has printed, and what Ray printed while it made its environment."""
        with self._explained(f"read the logs of {job} at", job):
            return str(self.client.get_job_logs(job))

    def stop(self, job: str) -> JobState:
        """Stop a job as Ctrl-C would, and wait until it has ended; one that has ended stays as it is."""
        with self._explained(f"stop {job} at", job):
            self.client.stop_job(job)
        # Ray kills what does not end by itself; beyond that only a cluster that is gone can keep it.
        deadline = time.monotonic() + 2 * STOP_S
        while not (state := self.state(job)).ended and time.monotonic() < deadline:
            time.sleep(0.5)
        return state

    @contextlib.contextmanager
    def _explained(self, doing: str, job: str | None = None) -> Iterator[None]:
        from ray.exceptions import RayError

        try:
            yield
        except (RuntimeError, OSError, RayError) as error:
            if job is not None and "does not exist" in str(error):
                raise SubmitError(f"no job {job} at {self.address}") from None
            raise SubmitError(f"can't {doing} {self.address}: {last_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of what was said."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].strip()


def last_line(error: BaseException | str) -> str:
    """The line that says most: servers answer with whole tracebacks."""
    lines = [line.strip(" .") for line in str(error).splitlines() if line.strip(" .")]
    return lines[-1] if lines else type(error).__name__


def _entrypoint(arguments: Sequence[str], *, own_directory: bool) -> str:
    """The shell's line: the program in the shell's place, so that signals and the exit status are its own.

    Python and Ray's workers put the current directory before what was sent; where a head was started in a
    checkout, that would be other code. -P keeps Python from it, and a directory without modules Ray.
    """
    command = f"exec {shlex.join(['python', '-P', '-m', 'rct_ray', *arguments])}"
    return command if own_directory else f"cd / && {command}"


def _client(address: str) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.exceptions import RayError
    from ray.job_submission import JobSubmissionClient

    for name in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
        # They log every upload, and every stream that ends.
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        client = JobSubmissionClient(address)
    except RayError as error:
        raise SubmitError(
            f"{address} asks for a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH, to "
            f"the cluster's ({first_line(error)})"
        ) from None
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        if "ray[default]" in str(error):
            raise SubmitError(
                "Ray's client for jobs is not installed: pip install 'rct-ray[cluster]'"
            ) from None
        raise SubmitError(
            f"what answers at {address} is not the Jobs API of Ray: {last_line(error)}"
        ) from None
    # The client itself would wait for ever, where a connection is lost without a word.
    client._do_request = partial(client._do_request, timeout=_ANSWER_S)
    return client


def _checkout(folder: str) -> str:
    if not (Path(folder) / "rct_ray" / "__main__.py").is_file():
        raise SubmitError(f"--working-dir {folder} is no checkout of rct-ray: it has no rct_ray/__main__.py")
    return folder
