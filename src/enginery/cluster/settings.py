"""What a `Cluster` was told: in this package's words, and to be read back in ipyparallel's."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, TypeVar

from enginery.cluster.former_keywords import (
    KEPT,
    check_local,
    name_of,
    profile_of,
    read_controller_args,
    refuse_both,
    refuse_unknown,
)
from enginery.cluster.names import make_up_name
from enginery.transport.addresses import ClusterDirectory, check_cluster_name

DATABASES = ("sqlite", "memory")
PORT_LIMIT = 65535
SCHEMES = ("leastload", "lru", "plainrandom", "twobin", "weighted", "pure")
_DEFAULTS = {
    "host": "127.0.0.1",
    "port": 0,
    "location": "",
    "scheme": "leastload",
    "hwm": None,
    "db": "sqlite",
}


def _also(name: str) -> Any:
    """Another name of an attribute."""
    return property(lambda self: getattr(self, name), lambda self, value: setattr(self, name, value))


_Limit = TypeVar("_Limit", int, float)


class Settings:
    """Base of `Cluster`."""

    n: int | None
    name: str
    host: str
    port: int
    location: str
    scheme: str
    hwm: int | None
    db: str
    durability: str
    record_limit: int | None
    payload_limit: int | None
    record_age: float | None
    payload_age: float | None
    shared_memory_limit: int | None
    cancel_grace: float | None
    engine_timeout: float
    detached: bool
    cluster_id: str
    """What was given as such, else the name."""
    profile: str
    cluster_file: str
    """Where the cluster file is written; empty = nowhere."""
    controller_args: list[str]
    log: logging.Logger

    controller_ip = _also("host")
    controller_location = _also("location")

    def __init__(self, short: Mapping[str, Any], former: Mapping[str, Any]) -> None:
        """Take keywords, ours and ipyparallel's; raises TypeError or ValueError for what cannot be meant."""
        refuse_unknown(former)
        refuse_both(short, former)
        self.controller_args = list(former.get("controller_args") or ())
        self._read_controller(short, former)
        self.engine_launcher_class = check_local(
            "engines", short["engines"] or former.get("engine_launcher_class")
        )
        self.controller_launcher_class = check_local(
            "controller", short["controller"] or former.get("controller_launcher_class")
        )
        self.profile = profile_of(former)
        name = short["name"] if short["name"] is not None else name_of(former)
        self.name = make_up_name() if name is None else check_cluster_name(name)
        given_id = former.get("cluster_id")
        self.cluster_id = self.name if given_id is None else str(given_id)
        ends_with_us = former.get("shutdown_atexit")
        self.detached = bool(short["detached"]) if ends_with_us is None else not ends_with_us
        cluster_file = former.get("cluster_file")
        self.cluster_file = str(
            ClusterDirectory(self.name).cluster_file if cluster_file is None else cluster_file
        )
        for kept, default in KEPT.items():
            setattr(self, kept, former.get(kept, default))
        self.log = former.get("log") or logging.getLogger("enginery.cluster")

    @property
    def shutdown_atexit(self) -> bool:
        """Whether the cluster ends with this process."""
        return not self.detached

    def _read_controller(self, short: Mapping[str, Any], former: Mapping[str, Any]) -> None:
        given = {name: value for name, value in short.items() if name in _DEFAULTS and value is not None}
        for name, long_name in (("host", "controller_ip"), ("location", "controller_location")):
            if former.get(long_name) is not None:
                given[name] = former[long_name] or _DEFAULTS[name]  # "" is the default, as it always was
        arguments = read_controller_args(self.controller_args)
        both = given.keys() & arguments.keys()
        if both:
            raise TypeError(f"controller_args has an option for what {min(both)}= says too; give one of them")
        found = {**_DEFAULTS, **arguments, **given}
        self.host, self.port, self.location = found["host"], found["port"], found["location"]
        if check_count("port", self.port) > PORT_LIMIT:
            raise ValueError(f"port must be at most {PORT_LIMIT}, and is {self.port}; 0 means any free one")
        self.scheme = one_of("scheme", found["scheme"], SCHEMES)
        self.db = one_of("db", found["db"], DATABASES)
        self.hwm = found["hwm"]
        if self.hwm is not None:
            check_count("hwm, the number of tasks in an engine,", self.hwm)

    def _kept_settings(self) -> dict[str, Any]:
        """Those that another process can be told."""
        names = ("n", "name", "profile", "cluster_file", "db", "durability", "engine_timeout")
        limits = ("record_limit", "payload_limit", "record_age", "payload_age", "shared_memory_limit")
        graces = ("cancel_grace",)
        return {
            name: getattr(self, name)
            for name in (*names, *limits, *graces, "host", "port", "location", "scheme", "hwm")
        }


def check_count(what: str, number: object) -> int:
    """Return a number of something; raises TypeError or ValueError for what is none."""
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{what} must be an int or None, not {number!r}")
    if number < 0:
        raise ValueError(f"{what} cannot be negative, and {number} is")
    return number


def check_limit(keyword: str, value: _Limit | None) -> _Limit | None:
    """Return a limit; raises TypeError or ValueError for what is none."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise TypeError(f"{keyword} must be a number or None, not {value!r}")
    if value is not None and not value >= 0:
        raise ValueError(f"{keyword} cannot be negative, and {value} is")
    return value


def one_of(keyword: str, value: str, allowed: tuple[str, ...]) -> str:
    """Return the value of a keyword; raises ValueError, with those there are, for any other."""
    if value not in allowed:
        raise ValueError(f"{keyword}={value!r} is not possible; use one of {', '.join(map(repr, allowed))}")
    return value
