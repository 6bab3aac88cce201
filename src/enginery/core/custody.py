"""Shared memory whose writer is gone: who looks after it until the last task that needs it has ended.

A writer takes its segments back when the controller says that nobody will be given them any more. One that
has left, or was killed, leaves its pool behind; the shell is asked to clear that, sparing what blobs lie in,
as soon as the kernel says that the writer is gone, and again until nothing is left.
"""

from __future__ import annotations

from collections.abc import Hashable

LOOK_S = 1.0


class Custody:
    """The pools of a cluster's writers on this host."""

    def __init__(self) -> None:
        self._pools: dict[Hashable, str] = {}  # of peers that are connected
        self._readers: set[Hashable] = set()  # those of them that can map what others have written
        self._orphans: dict[str, None] = {}
        self._look_at: float | None = None

    def __repr__(self) -> str:
        return f"<Custody of {len(self._pools)} pools, {len(self._orphans)} orphans>"

    def on_hello(self, peer: Hashable, pool: str) -> None:
        """The peer is (back) here and has this pool; an empty name: it shares nothing."""
        self.on_gone(peer)
        if pool:
            self._pools[peer] = pool
            self._readers.add(peer)
            self._orphans.pop(pool, None)

    def on_unreadable(self, peer: Hashable) -> None:
        """It cannot map what others have written: it gets frames from now on."""
        self._readers.discard(peer)

    def on_gone(self, peer: Hashable) -> None:
        """Its connection is gone, and perhaps the peer."""
        self._readers.discard(peer)
        pool = self._pools.pop(peer, None)
        if pool is not None:
            self._orphans[pool] = None
            if self._look_at is None:
                self._look_at = 0.0  # at once

    def on_left_over(self, pool: str) -> None:
        """A controller before this one knew it; its writer may be gone."""
        self._orphans[pool] = None
        self._look_at = 0.0

    def owns(self, peer: Hashable, segment: str) -> bool:
        """Whether a segment is in the pool of this peer."""
        return peer in self._pools and segment.startswith(f"{self._pools[peer]}/")

    def is_reader(self, peer: Hashable) -> bool:
        """Whether it can be given the name of a segment instead of frames."""
        return peer in self._readers

    def next_deadline(self) -> float | None:
        return self._look_at

    def take_due(self, *, now: float) -> list[str]:
        """The pools to be cleared now."""
        if self._look_at is None or now < self._look_at:
            return []
        self._look_at = now + LOOK_S if self._orphans else None
        return list(self._orphans)

    def on_cleared(self, pool: str) -> None:
        """The writer is gone and nothing of the pool is left."""
        self._orphans.pop(pool, None)

    def check(self) -> None:
        assert self._readers <= self._pools.keys()
        assert not self._orphans.keys() & set(self._pools.values())
        assert not self._orphans or self._look_at is not None
