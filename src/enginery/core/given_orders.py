"""Orders that clients have given, and how they were answered: what is repeated is not carried out again.

A client repeats after each hello what has no answer yet. The order may have come all the same, its answer
be lost or still to come. So the numbers of a client's orders are kept: of all that have no answer, and of the
last `ANSWERS_KEPT` with theirs.
"""

from __future__ import annotations

from collections import OrderedDict

from enginery.ids import ClientId
from enginery.protocol.messages import Answer

ANSWERS_KEPT = 64


class _Given:
    """Of one client."""

    __slots__ = ("answers", "open")

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.answers: OrderedDict[int, Answer] = OrderedDict()


class GivenOrders:
    """Of all clients."""

    def __init__(self) -> None:
        self._clients: dict[ClientId, _Given] = {}

    def __repr__(self) -> str:
        return f"<GivenOrders of {len(self._clients)} clients>"

    def on_given(self, client: ClientId, request: int) -> bool:
        """A client gives an order, or repeats it. Returns whether it is to be carried out."""
        given = self._clients.setdefault(client, _Given())
        if request in given.open or request in given.answers:
            return False
        given.open.add(request)
        return True

    def answer(self, client: ClientId, request: int) -> Answer | None:
        """The answer to an order that was given before; None while there is none."""
        given = self._clients.get(client)
        return None if given is None else given.answers.get(request)

    def on_answered(self, client: ClientId, answer: Answer) -> None:
        """Something is answered; remembered if it is an order."""
        given = self._clients.get(client)
        if given is None or answer.request not in given.open:
            return
        given.open.discard(answer.request)
        given.answers[answer.request] = answer
        if len(given.answers) > ANSWERS_KEPT:
            given.answers.popitem(last=False)

    def on_client_gone(self, client: ClientId) -> None:
        self._clients.pop(client, None)

    def check(self) -> None:
        for given in self._clients.values():
            assert given.open.isdisjoint(given.answers)
            assert len(given.answers) <= ANSWERS_KEPT
