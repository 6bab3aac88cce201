"""The keywords that ipyparallel's `Cluster` had: taken, given a meaning here, and kept to be read back.

A keyword that has a shorter name here (`PAIRS`) means the same; both together are refused. Those that
configure what this package has no use for are kept and change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from enginery.transport.addresses import DEFAULT_NAME, name_from

PAIRS = {
    "name": "cluster_id",
    "host": "controller_ip",
    "location": "controller_location",
    "controller": "controller_launcher_class",
    "engines": "engine_launcher_class",
    "detached": "shutdown_atexit",
}
"""The short form of a keyword, and the long one."""

_OPTIONS = {
    "ip": "host",
    "location": "location",
    "port": "port",
    "scheme": "scheme",
    "hwm": "hwm",
    "db": "db",
}
"""Options of `controller_args`, and the keywords that they are here."""
_FLAGS = {"nodb": "memory", "dictdb": "memory", "sqlitedb": "sqlite"}


class FormerKeywords(TypedDict, total=False):
    """What `Cluster` takes beside its own keywords."""

    profile: str | None
    profile_dir: str | None
    cluster_id: str | None
    cluster_file: str | None
    controller_args: Sequence[str] | None
    controller_ip: str | None
    controller_location: str | None
    controller_launcher_class: object
    engine_launcher_class: object
    delay: float
    send_engines_connection_env: bool
    shutdown_atexit: bool | None
    load_profile: bool
    log: Any
    log_level: int | str
    config: Any
    parent: Any


KEPT: Mapping[str, Any] = {
    "profile_dir": "",
    "delay": 1.0,
    "send_engines_connection_env": True,
    "load_profile": True,
    "log_level": "INFO",
    "config": None,
    "parent": None,
}
"""Attributes that can be read back and change nothing, with what they are if they were not given."""


def refuse_unknown(former: Mapping[str, Any]) -> None:
    """Raise TypeError, as Python does, for a keyword that nobody knows."""
    unknown = former.keys() - FormerKeywords.__annotations__.keys()
    if unknown:
        raise TypeError(f"Cluster() got an unexpected keyword argument {min(unknown)!r}")


def refuse_both(short: Mapping[str, Any], former: Mapping[str, Any]) -> None:
    """Raise TypeError if a keyword was given in its short and in its long form."""
    for name, long_name in PAIRS.items():
        if short.get(name) is not None and former.get(long_name) is not None:
            raise TypeError(
                f"{name}= is the short form of {long_name}=; give one of them, not {name}={short[name]!r} "
                f"and {long_name}={former[long_name]!r}"
            )


def profile_of(former: Mapping[str, Any]) -> str:
    """The profile that is meant: by its name, or by its directory."""
    directory = former.get("profile_dir")
    if former.get("profile"):
        return str(former["profile"])
    if directory:
        return Path(directory).name.removeprefix("profile_")
    return DEFAULT_NAME


def name_of(former: Mapping[str, Any]) -> str | None:
    """The name that profile and cluster id make; None if no cluster id was given.

    Then, as there always was, the cluster has an id of its own: two scripts of one profile do not meet.
    """
    cluster_id = former.get("cluster_id")
    return None if cluster_id is None else name_from(profile=profile_of(former), cluster_id=str(cluster_id))


def check_local(keyword: str, value: object) -> str:
    """Return "local" if that is what a kind of launcher means; raises ValueError for any other."""
    text = value if isinstance(value, str) else getattr(value, "__name__", repr(value))
    if value is not None and "local" not in text.lower():
        raise ValueError(
            f"{keyword}={value!r} is not possible: processes are started on this machine, {keyword}='local'; "
            "engines elsewhere are started there with:  enginery engine --file FILE"
        )
    return "local"


def read_controller_args(arguments: Sequence[str]) -> dict[str, Any]:
    """The keywords that options for ipyparallel's controller stand for.

    Raises ValueError for an option that has no meaning here.

    >>> read_controller_args(["--ip=*", "--hwm", "1", "--nodb"])
    {'host': '*', 'hwm': 1, 'db': 'memory'}
    """
    found: dict[str, Any] = {}
    rest = iter(arguments)
    for argument in rest:
        name, given, value = argument.removeprefix("--").partition("=")
        if name in _FLAGS and not given:
            found["db"] = _FLAGS[name]
        elif name in _OPTIONS and argument.startswith("--"):
            found[_OPTIONS[name]] = _read_value(name, value if given else _next_value(argument, rest))
        else:
            known = ", ".join(f"--{option}" for option in (*_OPTIONS, *_FLAGS))
            raise ValueError(f"controller_args has {argument!r}, which means nothing here; known: {known}")
    return found


def _next_value(option: str, rest: Iterator[str]) -> str:
    try:
        return next(rest)
    except StopIteration:
        raise ValueError(f"controller_args ends with {option!r}, which needs a value") from None


def _read_value(option: str, value: str) -> str | int:
    if option not in ("port", "hwm"):
        return value
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"controller_args: --{option} needs a whole number, not {value!r}") from None
