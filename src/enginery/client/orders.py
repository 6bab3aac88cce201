"""What a client has done to engines beside their tasks: stop, restart, signal, interrupt, clear."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from enginery.client.asking import ANSWER_S, Asker
from enginery.client.contract import TaskSession
from enginery.ids import EngineId
from enginery.protocol.messages import (
    Answer,
    ClearEngines,
    InterruptEngines,
    RestartEngines,
    ShutDown,
    SignalEngines,
    StopEngines,
)

CLEAR_S = 15.0
"""Longer than the controller waits for its engines' word."""
RESTART_S = 60.0


class EngineOrders:
    """Gives orders about engines for one client."""

    def __init__(self, session: Callable[[], TaskSession], asker: Asker) -> None:
        self._session = session
        self._asker = asker

    def clear(self, engines: Sequence[EngineId]) -> None:
        self._asker.ask(lambda number: ClearEngines(number, list(engines)), Answer, timeout_s=CLEAR_S)

    def clear_later(self, engines: Sequence[EngineId]) -> Future[None]:
        return self._asker.order_later(lambda number: ClearEngines(number, list(engines)))

    def interrupt(self, engines: Sequence[EngineId]) -> None:
        self._asker.ask(lambda number: InterruptEngines(number, list(engines)), Answer, timeout_s=CLEAR_S)

    def interrupt_later(self, engines: Sequence[EngineId]) -> Future[None]:
        return self._asker.order_later(lambda number: InterruptEngines(number, list(engines)))

    def send_signal(self, engines: Sequence[EngineId], signum: int) -> None:
        self._asker.order(lambda number: SignalEngines(number, list(engines), signum))

    def send_signal_later(self, engines: Sequence[EngineId], signum: int) -> Future[None]:
        return self._asker.order_later(lambda number: SignalEngines(number, list(engines), signum))

    def stop(self, engines: Sequence[EngineId], *, wait: bool) -> None:
        """With `wait`, return when they are gone; raises TimeoutError if they do not go."""
        keys = self._keys(engines)
        self._asker.order(lambda number: StopEngines(number, list(engines)))
        if wait and not self._session().wait_until(lambda: keys.isdisjoint(self._keys(engines)), ANSWER_S):
            raise TimeoutError(
                f"engines {sorted(map(int, engines))} have been told to end and are still there after "
                f"{ANSWER_S:g} s; look with:  enginery status"
            )

    def restart(self, engines: Sequence[EngineId]) -> None:
        """Return when others are there under their ids."""
        before = self._keys(engines)
        self._asker.ask(lambda number: RestartEngines(number, list(engines)), Answer, timeout_s=RESTART_S)

        def are_back() -> bool:
            now = self._keys(engines)
            return len(now) == len(before) and before.isdisjoint(now)

        if not self._session().wait_until(are_back, RESTART_S):
            raise TimeoutError(
                f"engines {sorted(map(int, engines))} have been started again and have not answered within "
                f"{RESTART_S:g} s; look with:  enginery logs"
            )

    def restart_later(self, engines: Sequence[EngineId]) -> Future[None]:
        """The future says when others have been started in their places."""
        return self._asker.order_later(lambda number: RestartEngines(number, list(engines)))

    def shut_down(self) -> None:
        self._asker.order(ShutDown)

    def _keys(self, engines: Sequence[EngineId]) -> set[str]:
        """The lives of these engines that are there now."""
        present = self._session().engines()
        return {str(present[engine].key) for engine in engines if engine in present}


def signal_number(sig: int | str) -> int:
    """The number of a signal given by its name, ``"SIGINT"`` or ``"int"``, or by its number.

    Raises ValueError for what is no signal here, TypeError for what can be none.
    """
    if isinstance(sig, bool) or not isinstance(sig, (int, str)):
        raise TypeError(f"a signal is given by name or number, not by {sig!r} ({type(sig).__name__})")
    try:
        if isinstance(sig, int):
            return int(signal.Signals(sig)) if sig else 0
        name = sig.upper()
        return int(signal.Signals[name if name.startswith("SIG") else f"SIG{name}"])
    except (ValueError, KeyError):
        raise ValueError(f"there is no signal {sig!r} here; give a name such as 'SIGINT'") from None
