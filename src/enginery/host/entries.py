"""What the processes of a host do: values, handed in by a room that may know all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from enginery.protocol.specs import ControllerSpec, EngineSpec


class Entries(NamedTuple):
    """The entry of each kind of process; each returns its exit code."""

    controller: Callable[[ControllerSpec], int]
    engine: Callable[[EngineSpec], int]
    program: Sequence[str] = (sys.executable, "-P", "-m", "enginery")
    """The command that does the same in a fresh interpreter: ``PROGRAM controller|engine NAME --spec -``."""
