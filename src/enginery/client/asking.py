"""Questions and orders to the controller, with an end to each wait and an error for each refusal."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from enginery.client.contract import AnyAnswer, TaskSession
from enginery.errors import ClusterNotResponding, EngineryError
from enginery.protocol.messages import Answer, Record

ANSWER_S = 10.0
"""How long the controller may take to answer what it knows or does at once."""
HISTORY_S = 60.0
"""How long it may take to search its history."""

Expected = TypeVar("Expected")
MakeError = Callable[[str], Exception]


class Asker:
    """Asks on behalf of one client."""

    def __init__(self, session: Callable[[], TaskSession], name: str) -> None:
        self._session = session
        self._name = name

    def __repr__(self) -> str:
        return f"<Asker at {self._name!r}>"

    def ask(
        self,
        make: Callable[[int], Record],
        expected: type[Expected],
        *,
        timeout_s: float = ANSWER_S,
        error: MakeError = EngineryError,
    ) -> Expected:
        """Ask and wait. Raises ClusterNotResponding, or what `error` makes of the controller's sentence."""
        session = self._session()
        future = session.ask(make)
        try:
            if not session.wait_until(future.done, timeout_s):
                raise ClusterNotResponding(self._name, timeout_s=timeout_s)
        finally:
            future.cancel()  # if it has no answer: an order is not given again when nobody waits for it
        return _read(future.result(timeout=0), expected, error)

    def order(self, make: Callable[[int], Record], *, error: MakeError = EngineryError) -> Answer:
        """Have something done, and wait until it is under way."""
        return self.ask(make, Answer, error=error)

    def order_later(self, make: Callable[[int], Record]) -> Future[None]:
        """Have something done; the future says when it is, or why it is not."""
        done: Future[None] = Future()

        def on_answer(answered: Future[AnyAnswer]) -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                _read(answered.result(timeout=0), Answer, EngineryError)
            except Exception as failure:  # noqa: BLE001 - all of it is for whoever holds the future
                done.set_exception(failure)
            else:
                done.set_result(None)

        self._session().ask(make).add_done_callback(on_answer)
        return done


def _read(answer: Any, expected: type[Expected], error: MakeError) -> Expected:
    sentence = getattr(answer, "error", "")
    if sentence:
        raise error(sentence)
    assert isinstance(answer, expected), answer
    return answer
