"""Which cluster is meant, and whether anybody answers there."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from rct_ray.submit.errors import SubmitError

# Ray reads both, in this order, and lets either win over the address that its client is given.
_OVERRIDES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_CONNECT_S = 5.0


def choose_address(given: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """The URL of a cluster's Jobs API, from `--address` or from Ray's environment variables.

    Parameters
    ----------
    given : str or None
        What `--address` says.
    environment : mapping
        Variables of the process; Ray lets RAY_API_SERVER_ADDRESS, then RAY_ADDRESS, override `given`.

    Returns
    -------
    str
        Without a slash at its end.

    Raises
    ------
    SubmitError
        If there is none, if it is no http address, or if both are there and differ.
    """
    name = next((name for name in _OVERRIDES if environment.get(name)), None)
    if given is None and name is None:
        raise SubmitError("which cluster? say --address http://HEAD:8265")
    if given is not None and name is not None and environment[name].rstrip("/") != given.rstrip("/"):
        raise SubmitError(
            f"--address is {given} but {name} is {environment[name]}, which Ray would use instead; unset "
            f"{name}, or leave --address away"
        )
    address = given if given is not None else environment[str(name)]
    where = "--address" if given is not None else name
    if not _is_url(address):
        raise SubmitError(
            f"{where} is {address!r}; jobs are sent to the dashboard of a cluster, such as http://HEAD:8265"
        )
    return address.rstrip("/")


def check_listening(address: str) -> None:
    """Refuse an address where nobody listens, within seconds: Ray's client would wait for minutes.

    Raises
    ------
    SubmitError
        If nobody does.
    """
    url = urlsplit(address)
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((str(url.hostname), port), timeout=_CONNECT_S).close()
    except (OSError, UnicodeError) as error:
        raise SubmitError(f"no Ray cluster answers at {address}: {error}") from None


def _is_url(address: str) -> bool:
    try:
        url = urlsplit(address)
        # A port that is no number is found when it is asked for.
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return False
