"""Which clusters there are, and tasks that begin and then wait at a gate until the test opens it."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import enginery as ipp

PATIENCE_S = 20.0
"""How long a test waits for what must come."""

Clusters = dict[str, dict[str, Any]]
TWO: Clusters = {"2 engines": {"n": 2}}
ONE_TWO_FOUR: Clusters = {"1 engine": {"n": 1}, **TWO, "4 engines": {"n": 4}}


class Gate:
    """A locked file. Tasks ask for the lock; those that come after it was opened walk through."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._file = open(path, "w")  # noqa: SIM115 - open() closes it
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def open(self) -> None:
        self._file.close()

    def hold(self, view: Any) -> ipp.AsyncResult:
        """Keep the view's engines, or one of a balanced view, busy; returns when the tasks have begun."""
        ar: ipp.AsyncResult = view.apply_async(wait_at, self.path)
        until_begun(ar)
        return ar


def wait_at(path: str, value: Any = "through") -> Any:
    """The task: say that it has begun, wait at the gate, return the value."""
    import fcntl

    print("begun")
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
    return value


def until_begun(*results: ipp.AsyncResult) -> None:
    def have_begun() -> bool:
        return all(has_begun(text) for ar in results for text in texts(ar))

    assert results[0]._session.wait_until(have_begun, PATIENCE_S)


def has_begun(text: str) -> bool:
    return "begun\n" in text


def texts(ar: ipp.AsyncResult) -> list[str]:
    found = ar.stdout
    return found if isinstance(found, list) else [found]


def each(rc: ipp.Client, value: Any) -> list[Any]:
    """The same from every engine."""
    return [value] * len(rc)


def from_main(source: str, name: str = "f") -> Any:
    """What a source text makes under this name, as if it had been typed into a session."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(source, space)
    return space[name]
