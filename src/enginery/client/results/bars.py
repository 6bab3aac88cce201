"""Progress bars: when they move. How they look, in a terminal and in a notebook, is for `frontends`.

A bar asks for the state when it draws, so what it shows is never late news, whichever thread moves it.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import MethodType, TracebackType
from typing import Protocol, Self

from enginery import registry
from enginery.client.contract import TaskSession
from enginery.client.snapshots import Standing

MOVE_S = 0.1
"""Between two drawings at least."""

Look = Callable[[], Standing]


class Screen(Protocol):
    """Where a bar is drawn."""

    def draw(self, standing: Standing) -> None: ...

    def clear(self) -> None:
        """Make room for what is written until the next `draw`."""

    def close(self) -> None:
        """Leave what was drawn last."""


class ProgressBar:
    """A bar that may be moved by several threads.

    `widget` says whether it is a notebook's; None = where there is one. With a `session` it moves on without
    being told, as long as anything comes.
    """

    def __init__(self, look: Look, *, widget: bool | None = None, session: TaskSession | None = None) -> None:
        self._look = look
        self._session = session
        self._lock = threading.Lock()
        self._screen: Screen | None = registry.find("open_screen")(widget)
        self._drawn_at = 0.0
        self._is_behind = False  # something may have moved since it was drawn
        self._is_hidden = False
        self.move()
        if session is not None:
            session.tickers.add(self)

    def __repr__(self) -> str:
        standing = self._look()
        return f"<ProgressBar {standing.done} of {standing.total}, {standing.failed} failed>"

    def move(self) -> None:
        """Something may have moved: show it, or soon."""
        with self._lock:
            self._is_behind = True
            if not self._is_hidden and time.monotonic() - self._drawn_at >= MOVE_S:
                self._draw()

    def on_tick(self) -> bool:
        if self._is_behind:
            self.move()
        return self._screen is not None and self._is_behind

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Make room on the screen for what is written inside the block."""
        with self._lock:
            self._is_hidden = True
            self._on_screen(lambda screen: screen.clear())
        try:
            yield
        finally:
            with self._lock:
                self._is_hidden = False
                self._is_behind = True
            self.move()

    def close(self) -> None:
        """Leave the last state on the screen. Repeating it does nothing."""
        if self._session is not None:
            self._session.tickers.remove(self)
        with self._lock:
            self._draw()
            self._on_screen(lambda screen: screen.close())
            self._screen = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------ inside, under the lock

    def _draw(self) -> None:
        if self._screen is None:
            return
        self._is_behind = False
        standing = self._look()
        self._on_screen(lambda screen: screen.draw(standing))
        self._drawn_at = time.monotonic()

    def _on_screen(self, step: Callable[[Screen], object]) -> None:
        """A screen that is gone (a closed pipe) ends the bar, not the work that it shows."""
        if self._screen is None:
            return
        try:
            step(self._screen)
        except (OSError, ValueError):
            screen, self._screen = self._screen, None
            with contextlib.suppress(OSError, ValueError):
                screen.close()


def weak_look(standing: Look) -> Look:
    """A bound method that does not keep its object: who is shown may hold what shows it."""
    assert isinstance(standing, MethodType)
    reference: weakref.WeakMethod[Look] = weakref.WeakMethod(standing)

    def look() -> Standing:
        method = reference()
        return Standing() if method is None else method()

    return look
