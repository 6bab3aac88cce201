"""What an engine holds, told by its control thread while the main thread may be in the middle of anything."""

from __future__ import annotations

import threading
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from enginery.engine.namespace import SHELL_NAMES, Namespace
from enginery.objects.sizes import size_of
from enginery.protocol.messages import MemoryUse, NamedObject, clean_text
from enginery.transport.footprint import measure
from enginery.transport.sharing import Sharing

OBJECTS_TOLD = 10
_NAME_LIMIT = 100
_NO_DATA = (ModuleType, FunctionType, BuiltinFunctionType, type)


def memory_use(namespace: Namespace, sharing: Sharing, *, blobs: int, results: int) -> MemoryUse:
    """`blobs` and `results` in bytes."""
    objects = sorted(map(_named, _data(namespace)), key=_by_size)
    pool = sharing.statistics()
    resident, proportional = measure()
    return MemoryUse(
        sum(each.size_bytes for each in objects),
        objects[:OBJECTS_TOLD],
        blobs,
        results,
        pool.lent_bytes,
        pool.total_bytes - pool.lent_bytes,
        resident,
        proportional,
    )


def _data(namespace: Namespace) -> list[tuple[str, Any]]:
    """The names of the user's data; what has several names counts once."""
    found: dict[int, tuple[str, Any]] = {}
    names: list[tuple[Any, Any]] = list(namespace.items())  # what ``globals()[1] = …`` leaves is no text
    for name, value in names:
        is_ours = not isinstance(name, str) or name in SHELL_NAMES or name.startswith("_")
        if not is_ours and not isinstance(value, _NO_DATA):
            found.setdefault(id(value), (name, value))
    return list(found.values())


def _named(item: tuple[str, Any]) -> NamedObject:
    name, value = item
    kind = type(value).__name__
    return NamedObject(clean_text(name)[:_NAME_LIMIT], clean_text(kind)[:_NAME_LIMIT], size_of(value))


def _by_size(named: NamedObject) -> tuple[int, str]:
    return -named.size_bytes, named.name


class Freeing:
    """Asks the main thread to let go of its caches, and waits for it a moment."""

    def __init__(self) -> None:
        self._wanted = threading.Event()
        self._done = threading.Event()

    @property
    def is_wanted(self) -> bool:
        return self._wanted.is_set()

    def ask(self) -> None:
        self._done.clear()
        self._wanted.set()

    def wait(self, timeout_s: float) -> bool:
        """Whether it is done; else it will not be."""
        done = self._done.wait(timeout_s)
        self._wanted.clear()
        return done

    def on_done(self) -> None:
        self._wanted.clear()
        self._done.set()
