"""Values that travel as other libraries' processes would take them: with the data that their functions name.

A function that is sent by itself finds its free names on the engine, and data never travels with it. Where a
library hands over calls that were made for processes of its own, that is not what anybody expects.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle


class Carried:
    """Stands for a value in the arguments of a call; what arrives is the value. Buffers leave out of band."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __repr__(self) -> str:
        return f"<Carried {self._value!r}>"

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        buffers: list[pickle.PickleBuffer] = []
        data = cloudpickle.dumps(self._value, protocol=5, buffer_callback=buffers.append)
        return load, (data, buffers)


def load(data: bytes, buffers: Sequence[Any]) -> Any:
    """The value, on the engine."""
    return pickle.loads(data, buffers=buffers)


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call what was carried; runs on the engine."""
    return function(*args, **kwargs)
