"""Questions that the controller puts to several peers, and answers when all of them have spoken.

A peer hears a question again after each hello, until it has answered. One that leaves has nothing to say; one
that is silent for too long is named in the answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

from enginery.ids import ClientId

Peer = TypeVar("Peer")
Word = TypeVar("Word")


class Poll(NamedTuple, Generic[Peer, Word]):
    """Who asked, under which number of his, who has said what, and who has not answered."""

    client: ClientId
    request: int
    free: bool  # who is asked lets go first of what can be had again
    words: dict[Peer, Word]
    open: set[Peer]
    deadline: float


class Polls(Generic[Peer, Word]):
    """All questions of one kind that are not answered, by their numbers."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._polls: dict[int, Poll[Peer, Word]] = {}  # by deadline, ascending
        self._next = 1

    def __repr__(self) -> str:
        return f"<Polls: {len(self._polls)} open>"

    def on_asked(
        self, client: ClientId, request: int, peers: Iterable[Peer], *, free: bool = False, now: float
    ) -> int:
        """Begin a question to some peers, one at least; returns its number."""
        number, self._next = self._next, self._next + 1
        self._polls[number] = Poll(client, request, free, {}, set(peers), now + self._wait_s)
        return number

    def on_answered(self, number: int, peer: Peer, word: Word) -> Poll[Peer, Word] | None:
        """A peer has answered. Returns the question if that was the last one."""
        poll = self._polls.get(number)
        if poll is None or peer not in poll.open:
            return None
        poll.words[peer] = word
        return self._close(number, peer)

    def on_gone(self, peer: Peer) -> list[Poll[Peer, Word]]:
        """A peer has left. Returns the questions for which it was the last one."""
        closed = [self._close(number, peer) for number, _ in self.of(peer)]
        return [poll for poll in closed if poll is not None]

    def of(self, peer: Peer) -> list[tuple[int, bool]]:
        """The questions that this peer has not answered, and whether it is to let go of things first."""
        return [(number, poll.free) for number, poll in self._polls.items() if peer in poll.open]

    def next_deadline(self) -> float | None:
        return next((poll.deadline for poll in self._polls.values()), None)

    def take_overdue(self, *, now: float) -> list[Poll[Peer, Word]]:
        """Questions that are waited for no longer."""
        overdue = [number for number, poll in self._polls.items() if poll.deadline <= now]
        return [self._polls.pop(number) for number in overdue]

    def check(self) -> None:
        deadlines = [poll.deadline for poll in self._polls.values()]
        assert deadlines == sorted(deadlines)
        for poll in self._polls.values():
            assert poll.open
            assert poll.open.isdisjoint(poll.words)

    def _close(self, number: int, peer: Peer) -> Poll[Peer, Word] | None:
        poll = self._polls[number]
        poll.open.discard(peer)
        return None if poll.open else self._polls.pop(number)
