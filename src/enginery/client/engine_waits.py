"""Waiting for engines, by threads and by futures. Engines that die meanwhile end it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future

from enginery.client.snapshots import Standing
from enginery.errors import ClientClosed, EngineError
from enginery.ids import NO_ENGINE, EngineId
from enginery.protocol.messages import EngineInfo, EngineLeft


class EngineWait:
    """One wait for `wanted` engines."""

    __slots__ = ("began", "count", "died", "future", "is_met", "wanted")

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.count = 0
        self.began = time.monotonic()
        self.is_met = False
        self.died: EngineLeft | None = None
        self.future: Future[None] = Future()

    @property
    def is_over(self) -> bool:
        return self.is_met or self.died is not None

    def standing(self) -> Standing:
        """How far it is."""
        elapsed_s = time.monotonic() - self.began
        there = min(self.count, self.wanted)
        return Standing(there, self.wanted, name="engines", unit="engines", elapsed_s=elapsed_s)

    def error(self) -> EngineError | None:
        """What ended it, if that was a death."""
        if self.died is None or self.is_met:
            return None
        engine = None if self.died.engine == NO_ENGINE else int(self.died.engine)
        cause = f"{self.died.cause}, while {self.wanted} engines were waited for"
        return EngineError(engine=engine, cause=cause)


class EngineWaits:
    """The waits of one client that are not over."""

    def __init__(self) -> None:
        self._waits: list[EngineWait] = []

    def __repr__(self) -> str:
        return f"<EngineWaits: {len(self._waits)}>"

    def begin(self, wanted: int) -> EngineWait:
        """Begin to wait; `on_changed` is to be called next."""
        wait = EngineWait(wanted)
        self._waits.append(wait)
        return wait

    def end(self, wait: EngineWait) -> bool:
        """Wait no longer; False if somebody else has ended it."""
        try:
            self._waits.remove(wait)
        except ValueError:
            return False
        return True

    def on_changed(self, count: int, joined: Sequence[EngineInfo], left: Sequence[EngineLeft]) -> None:
        """Engines have come and gone, `count` are there. One that is replaced at once has not died."""
        replaced: set[EngineId] = {info.engine for info in joined}
        dead = next((one for one in left if one.engine not in replaced and not one.expected), None)
        for wait in list(self._waits):
            wait.count = count
            wait.is_met = wait.is_met or count >= wait.wanted
            if dead is not None and not wait.is_over:
                wait.died = dead
            if wait.is_over and self.end(wait):
                _settle(wait.future, wait.error())

    def close(self, reason: str) -> None:
        """The session is over."""
        waits, self._waits = self._waits, []
        for wait in waits:
            _settle(wait.future, ClientClosed(reason))


def _settle(future: Future[None], error: Exception | None) -> None:
    if future.set_running_or_notify_cancel():
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
