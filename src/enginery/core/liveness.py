"""Who has been silent for how long, and what follows.

Silence is no proof of anything: an engine may hold the GIL for minutes while 0MQ's own thread answers for it.
So a silent peer is first probed (a message to its route; the transport answers GONE if there is no such route
any more). A peer without a route is *disconnected* and has `grace_s` to say hello again; then it is given up.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

PROBE_INTERVAL_S = 2.0
GRACE_S = 60.0
CLIENT_GRACE_S = 600.0
"""How long a client that vanished may stay away before its results are in the store only."""

Peer = TypeVar("Peer", bound=Hashable)
Peer_contra = TypeVar("Peer_contra", bound=Hashable, contravariant=True)


class LivenessOutbox(Protocol[Peer_contra]):
    def probe(self, peer: Peer_contra) -> None:
        """Send something to this peer; report `on_disconnected` if its route is gone."""

    def give_up(self, peer: Peer_contra) -> None:
        """The grace of a disconnected peer is over."""


class Liveness(Generic[Peer]):
    """Deadlines of all peers. `on_heard` is on the hot path and only writes a number."""

    def __init__(self, *, probe_interval_s: float = PROBE_INTERVAL_S, grace_s: float = GRACE_S) -> None:
        self._probe_interval_s = probe_interval_s
        self._grace_s = grace_s
        self._heard_at: dict[Peer, float] = {}  # connected peers
        self._gone_at: dict[Peer, float] = {}  # disconnected peers
        self._graces: dict[Peer, float] = {}
        self._deadlines: list[tuple[float, int, Peer]] = []
        self._ticket = 0
        self._ticket_of: dict[Peer, int] = {}  # the one deadline of a peer that counts

    def __repr__(self) -> str:
        return f"<Liveness of {len(self._heard_at)} connected and {len(self._gone_at)} disconnected peers>"

    def on_connected(self, peer: Peer, *, now: float, grace_s: float | None = None) -> None:
        if grace_s is not None:
            self._graces[peer] = grace_s
        self._gone_at.pop(peer, None)
        self._heard_at[peer] = now
        self._push(now + self._probe_interval_s, peer)

    def on_heard(self, peer: Peer, *, now: float) -> None:
        if peer in self._heard_at:
            self._heard_at[peer] = now

    def on_disconnected(self, peer: Peer, *, now: float) -> bool:
        """Its route is gone. False if that was known."""
        if self._heard_at.pop(peer, None) is None:
            return False
        self._gone_at[peer] = now
        self._push(now + self._graces.get(peer, self._grace_s), peer)
        return True

    def on_left(self, peer: Peer) -> None:
        """Nothing more is expected of it."""
        self._heard_at.pop(peer, None)
        self._gone_at.pop(peer, None)
        self._graces.pop(peer, None)
        self._ticket_of.pop(peer, None)

    def next_deadline(self) -> float | None:
        return self._deadlines[0][0] if self._deadlines else None

    def on_tick(self, *, now: float, outbox: LivenessOutbox[Peer]) -> None:
        due: list[Peer] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, ticket, peer = heapq.heappop(self._deadlines)
            if self._ticket_of.get(peer) == ticket:
                due.append(peer)
        for peer in due:
            heard_at = self._heard_at.get(peer)
            if heard_at is not None:
                silent_until = heard_at + self._probe_interval_s
                if silent_until <= now:
                    outbox.probe(peer)
                    silent_until = now + self._probe_interval_s
                if peer in self._heard_at:  # the probe may have found it gone
                    self._push(silent_until, peer)
                continue
            gone_at = self._gone_at.get(peer)
            if gone_at is not None and gone_at + self._graces.get(peer, self._grace_s) <= now:
                self.on_left(peer)
                outbox.give_up(peer)

    def _push(self, deadline: float, peer: Peer) -> None:
        self._ticket += 1
        self._ticket_of[peer] = self._ticket
        heapq.heappush(self._deadlines, (deadline, self._ticket, peer))

    def check(self) -> None:
        assert self._heard_at.keys().isdisjoint(self._gone_at)
        queued = {peer for _, ticket, peer in self._deadlines if self._ticket_of.get(peer) == ticket}
        assert self._heard_at.keys() <= queued
        assert self._gone_at.keys() <= queued
