"""The commands for a cluster's Jobs API: submit, status, logs, stop."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rct_ray.cli_options import make_config, say

if TYPE_CHECKING:
    from rct_ray.submit.client import Cluster, JobState

Address = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="The cluster's dashboard: http://HEAD:8265 (or RAY_API_SERVER_ADDRESS)."
    ),
]
Job = Annotated[str, typer.Argument(metavar="ID", help="What submit printed.")]
Follow = Annotated[
    bool, typer.Option("--follow", help="Print the log until the job ends; exit with its status.")
]

# How an application registers submit: what is no option of it is read as run would.
AS_RUN: dict[str, Any] = {
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
    "options_metavar": "CHECKPOINT... [OPTIONS] [OPTIONS OF run]",
}


def submit(
    context: typer.Context,
    address: Address = None,
    follow: Follow = False,
    shared_path: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR", help="A directory that is the same here and on every node; repeatable."),
    ] = None,
    working_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="Send this checkout's code, not the installed package.")
    ] = None,
    install: Annotated[
        bool, typer.Option("--install-requirements", help="Let the nodes install what the package requires.")
    ] = False,
) -> None:
    """Send a run to a Ray cluster; takes the arguments of run besides these."""
    from rct_ray.submit.address import choose_address
    from rct_ray.submit.client import Cluster
    from rct_ray.submit.paths import check_shared

    shared = shared_path or []
    check_shared(shared)
    asked = _parsed(context)
    # First of all, for what is wrong with the settings needs no cluster to be seen.
    metadata = _metadata(asked)
    cluster = Cluster(choose_address(address))
    arguments = _for_cluster(asked, shared, cluster)
    job = cluster.submit(arguments, metadata, working_dir=working_dir, install=install)
    say(
        f"{job} was sent to {cluster.address}: rct-ray status, logs or stop {job} --address {cluster.address}"
    )
    if follow:
        _follow(cluster, job)
    else:
        print(job)


def status(
    job: Job,
    address: Address = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say where a job is."""
    state = _cluster(address).state(job)
    if as_json:
        print(
            json.dumps(
                {
                    "job": job,
                    "status": state.status,
                    "exit_status": state.exit_status,
                    "message": state.message,
                    "entrypoint": state.entrypoint,
                    "metadata": dict(state.metadata),
                }
            )
        )
        return
    print(_described(state))
    for name, value in state.metadata.items():
        print(f"{name}: {value}")


def logs(job: Job, address: Address = None, follow: Follow = False) -> None:
    """Print what a job has printed."""
    cluster = _cluster(address)
    if follow:
        _follow(cluster, job)
    else:
        sys.stdout.write(cluster.logs(job))


def stop(job: Job, address: Address = None) -> None:
    """Stop a job as Ctrl-C would, and wait for its end."""
    state = _cluster(address).stop(job)
    print(_described(state))
    if not state.ended:
        raise typer.Exit(1)


def _cluster(address: str | None) -> Cluster:
    from rct_ray.submit.address import choose_address
    from rct_ray.submit.client import Cluster

    return Cluster(choose_address(address))


def _follow(cluster: Cluster, job: str) -> None:
    from rct_ray.submit.follow import follow

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    try:
        ended = follow(cluster, job, write)
    except KeyboardInterrupt:
        say(f"{job} goes on: rct-ray logs {job} --follow, or stop {job}, --address {cluster.address}")
        raise
    if ended is None:
        say(f"rct-ray: {cluster.address} no longer answers; {job} may go on")
        raise typer.Exit(1)
    say(f"{job}: {_described(ended)}")
    if ended.exit_status:
        raise typer.Exit(ended.exit_status)


def _described(state: JobState) -> str:
    """One line: the state, and what of Ray's message is not the log again."""
    message = (state.message.strip().splitlines() or [""])[0]
    if state.status == "FAILED" and state.driver_exit_code is not None:
        message = f"exit status {state.driver_exit_code}"
    return f"{state.status}: {message.rstrip(':')}" if message else state.status


def _parsed(context: typer.Context) -> Any:
    """The other arguments as `run` reads them, so that its mistakes are seen before anything is sent."""
    group: Any = context.parent.command if context.parent else None
    run = group.get_command(context.parent, "run")
    return run.make_context("submit", list(context.args), parent=context.parent)


def _given(asked: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in asked.params.items()
        if asked.get_parameter_source(name).name == "COMMANDLINE"
    }


def _metadata(asked: Any) -> dict[str, str]:
    """What to know a job by; the digest is that of the manifest of the run it makes."""
    from dataclasses import fields
    from importlib.metadata import version

    from rct_ray.config import RunConfig, parse_bytes

    settings = {field.name for field in fields(RunConfig) if field.init} - {"preset"}
    options = {name: value for name, value in _given(asked).items() if name in settings}
    if "driver_memory" in options:
        options["driver_memory"] = parse_bytes(options["driver_memory"])
    config = make_config(asked.params.get("preset"), **options)
    return {
        "rct_ray": version("rct-ray"),
        "configuration_digest": config.digest,
        "tower": config.tower,
        "out": str(asked.params.get("out")),
    }


def _for_cluster(asked: Any, shared: list[str], cluster: Cluster) -> list[str]:
    """The arguments of `run` as the cluster is to read them: on Ray, and with its own paths."""
    from rct_ray.submit.errors import SubmitError
    from rct_ray.submit.paths import cluster_path, is_this_machine

    given = _given(asked)
    if given.pop("engine", "ray") not in ("auto", "ray"):
        raise SubmitError("a job runs on Ray: leave --engine away")
    if "out" not in given:
        raise SubmitError("say --out DIR: a job's own directory is gone with the cluster")
    here = is_this_machine(cluster.nodes())
    arguments, operands = ["run", "--engine=ray"], []
    for parameter in asked.command.params:
        if parameter.name not in given:
            continue
        value = given[parameter.name]
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        if parameter.name == "checkpoints" or isinstance(values[0], os.PathLike):
            values = [cluster_path(os.fspath(path), shared, here=here) for path in values]
        if parameter.param_type_name == "argument":
            operands += values
        elif parameter.is_flag:
            arguments += [parameter.opts[0]] if value else []
        else:
            arguments += [f"{parameter.opts[0]}={text}" for text in values]
    return [*arguments, "--", *operands]
