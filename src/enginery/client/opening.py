"""Which cluster a `Client` is to connect to, by whatever its caller names it with."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from enginery.transport.addresses import DEFAULT_NAME, name_from
from enginery.transport.connection_file import ConnectionInfo, from_dictionary, load
from enginery.transport.discovery import locate, may_come_back

COME_BACK_S = 5.0
"""What is promised for a controller that its host starts again."""
_LOOK_S = 0.02
_SSH = ("sshserver", "sshkey", "password", "paramiko")


class Connection(NamedTuple):
    """What is needed to dial, and the file that it came from; no text if there was none."""

    info: ConnectionInfo
    path: str = ""


def find_connection(named: Any, former: Mapping[str, Any]) -> Connection:
    """Find the connection information that is meant.

    `named` is a cluster's name, the path of a connection file, its content as a dictionary, or a
    `ConnectionInfo`; `former` are keywords of ipyparallel that name clusters. Raises what `locate` and `load`
    raise; TypeError and ValueError for what names nothing.
    """
    refuse_tunnels(former)
    if isinstance(named, ConnectionInfo):
        return Connection(named)
    if isinstance(named, Mapping):
        return Connection(from_dictionary(named))
    if named is None:
        named = name_of(former)
    elif not isinstance(named, (str, os.PathLike)):
        raise TypeError(
            "a cluster is named by its name, the path of its connection file or the content of that as a "
            f"dictionary, not by {named!r} ({type(named).__name__})"
        )
    if isinstance(named, str) and "://" in named:
        raise ValueError(
            f"{named!r} is a URL, which does not say enough to connect; give the cluster's name or the path "
            "of its connection file, which `enginery list` shows"
        )
    path = _locate(named)
    return Connection(load(path), str(path))


def _locate(named: str | os.PathLike[str] | None) -> Path:
    """As `locate`; a controller that is started again when it dies has a moment to come back."""
    deadline = time.monotonic() + COME_BACK_S
    never = threading.Event()
    while may_come_back(named) and time.monotonic() < deadline:
        never.wait(_LOOK_S)  # for a file of another process, which tells nobody
    return locate(named)


def name_of(former: Mapping[str, Any]) -> str | Path | None:
    """The name or file that the keywords `url_file`, `profile`, `profile_dir` and `cluster_id` stand for."""
    if former.get("url_file"):
        return Path(former["url_file"])
    if not any(former.get(keyword) for keyword in ("profile", "profile_dir", "cluster_id")):
        return None
    return name_from(profile=profile_of(former), cluster_id=str(former.get("cluster_id") or ""))


def profile_of(former: Mapping[str, Any]) -> str:
    """The profile that is meant: by its name, or by its directory."""
    if former.get("profile"):
        return str(former["profile"])
    if former.get("profile_dir"):
        return Path(former["profile_dir"]).name.removeprefix("profile_")
    return DEFAULT_NAME


def refuse_tunnels(former: Mapping[str, Any]) -> None:
    """Raise ValueError if a tunnel is asked for."""
    for keyword in _SSH:
        if former.get(keyword):
            raise ValueError(
                f"{keyword}= is not possible: a client makes no SSH tunnels. Start the controller on an "
                "address that this machine reaches (enginery start --host) and give a copy of its client.json"
            )
