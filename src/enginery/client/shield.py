"""Ctrl-C, kept out of the middle of a step.

Problem: KeyboardInterrupt is raised between any two steps of the main thread, also where a message has been
taken and not yet handed out, or a call been entered at one place and not yet at the other. A `finally` mends
what it can see; what it cannot is lost until the next hello, or for good.

Choice: while the main thread is in the client's own steps, a handler notes SIGINT, and the handler that was
there is called when the step is complete: at its end, or where the thread sleeps or goes into code that is
not ours (`Lowered`). A step costs 0.8 µs. Other threads never get a signal, and where it is not a function of
Python's that handles them, nothing is changed. For what else may raise anywhere, a user's handler of another
signal, there is `Connection.tear`.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # `signal` makes enums of it all, in 6 µs instead of 0.6
import os
import threading
from types import FrameType
from typing import Any, Final

_SIGINT: Final = int(_signal.SIGINT)


class _State:
    """Of the main thread."""

    def __init__(self) -> None:
        self.levels: list[bool] = []
        """For each block that it is in, whether interrupts are noted there. The last one counts."""
        self.has_noted = False
        self.handler: Any = None
        """The one whose place `on_interrupt` has taken."""

    @property
    def is_raised(self) -> bool:
        return bool(self.levels) and self.levels[-1]

    def on_interrupt(self, signum: int, frame: FrameType | None) -> None:
        if self.levels and self.levels[-1]:
            self.has_noted = True
        else:
            self.has_noted = False
            self.handler(signum, frame)

    def install(self) -> None:
        """Take the handler's place. What comes meanwhile goes on to it."""
        handler = _signal.getsignal(_SIGINT)
        if handler == self.on_interrupt or not callable(handler):
            return
        self.handler = handler
        try:
            _signal.signal(_SIGINT, self.on_interrupt)
        except ValueError:
            return  # the main thread of another interpreter gets no signals

    def settle(self) -> None:
        """A step is complete: call the handler for what was noted, after the last one back in its place."""
        if not self.levels and _signal.getsignal(_SIGINT) == self.on_interrupt:
            _signal.signal(_SIGINT, self.handler)
        if self.has_noted:
            self.has_noted = False
            self.handler(_SIGINT, None)


_state = _State()
os.register_at_fork(after_in_child=_state.levels.clear)  # it may not have been the main thread that forked


class _Block:
    """Blocks end by their depth, so that one which an interrupt has kept from ending is no matter."""

    __slots__ = ("_depth",)

    def __init__(self) -> None:
        self._depth = len(_state.levels) if threading.get_ident() == threading.main_thread().ident else -1


class Shield(_Block):
    """A step of the client's own, in which Ctrl-C is noted.

    >>> with Shield():
    ...     pass
    """

    __slots__ = ()

    def __enter__(self) -> None:
        if self._depth >= 0:
            if not _state.is_raised:
                _state.install()
            _state.levels.append(True)

    def __exit__(self, *_: object) -> None:
        if self._depth >= 0:
            del _state.levels[self._depth :]
            if not _state.is_raised:
                _state.settle()


class Lowered(_Block):
    """A pause in which Ctrl-C is raised at once: a sleep, or code that is not the client's.

    What was noted before is raised at its begin, unless it `is_due` in any case.
    """

    __slots__ = ("_is_due",)

    def __init__(self, *, is_due: bool = False) -> None:
        super().__init__()
        self._is_due = is_due

    def __enter__(self) -> None:
        if self._depth > 0:
            _state.levels.append(False)
            if not self._is_due:
                _state.settle()

    def __exit__(self, *_: object) -> None:
        if self._depth > 0:
            del _state.levels[self._depth :]
