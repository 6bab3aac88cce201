"""Finds, in what 0MQ tells about its connections, those that ended without ever having proven themselves.

0MQ reports accepted, handshake succeeded, handshake failed and disconnected, but success names no connection,
and bytes that are no 0MQ at all are reported as a plain disconnect. So successes are counted: while all
connections that are open have succeeded, one that ends is a peer that leaves; one that ends with fewer
successes than connections was a stranger. Of many newcomers at once two can be mixed up; the count
stays right.
"""

from __future__ import annotations

from enginery.transport.channel import Rejected

_ENDED_EARLY = "it ended before its handshake was complete (not 0MQ, or a peer that gave up)"


class Doorkeeper:
    """Follows one socket's connections through their handshake."""

    def __init__(self, *, patience_s: float) -> None:
        # 0MQ itself ends a connection whose handshake takes longer, so that older ones have succeeded.
        self._patience_s = patience_s
        self._unproven: dict[int, tuple[float, str]] = {}
        self._successes = 0
        self._failure: str | None = None

    def __repr__(self) -> str:
        return f"<Doorkeeper: {len(self._unproven)} unproven, {self._successes} successes>"

    def on_accepted(self, connection: int, peer: str, *, now: float) -> None:
        self._unproven[connection] = (now, peer)

    def on_succeeded(self) -> None:
        self._successes += 1
        self._settle()

    def on_failed(self, reason: str) -> None:
        """The connection that is disconnected next has failed; an empty reason is not reported."""
        self._failure = reason

    def on_disconnected(self, connection: int, *, now: float) -> Rejected | None:
        failure, self._failure = self._failure, None
        accepted, peer = self._unproven.pop(connection, (now, ""))
        if failure is not None:
            self._settle()
            return Rejected(failure, peer) if failure else None
        self._expire(now)
        if not peer or now - accepted > self._patience_s:
            return None
        if self._successes:
            self._successes -= 1
            self._settle()
            return None
        return Rejected(_ENDED_EARLY, peer)

    def _expire(self, now: float) -> None:
        old = [key for key, (accepted, _) in self._unproven.items() if now - accepted > self._patience_s]
        for connection in old:
            del self._unproven[connection]
        self._successes = max(0, self._successes - len(old))

    def _settle(self) -> None:
        if self._successes >= len(self._unproven):
            self._unproven.clear()
            self._successes = 0
