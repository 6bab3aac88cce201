"""The lane and 0MQ in one loop: the controller's `Exchange` where both are offered.

One epoll object holds the lane's connections, the wakers, and the descriptors of the 0MQ sockets. Those tell
of changes only, so 0MQ is asked for its events before every wait that follows a use of it; while all traffic
is on the lane, a turn of the loop costs one poll.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Sequence
from typing import Protocol

from enginery.protocol.codec import Buffer
from enginery.transport.channel import Delivery, Exchange, HasFileno, Incoming, Rejected, Route
from enginery.transport.keys import ClusterKeys
from enginery.transport.lane_listener import LANE_PREFIX, LaneListener

_EVENTS_AT_ONCE = 256
_KEPT_REJECTIONS = 64


class PolledExchange(Exchange, Protocol):
    """An exchange whose descriptors can be polled beside others."""

    @property
    def descriptors(self) -> tuple[int, ...]: ...

    def look(self, *, signalled: bool) -> bool:
        """Take note of what has come; True if `receive` has something. To be called before each wait."""
        ...


class LaneExchange:
    """An `Exchange` over the lane and over 0MQ; owns both."""

    def __init__(self, far: PolledExchange, keys: ClusterKeys, lane_path: str | os.PathLike[str]) -> None:
        self._far = far
        self._epoll = select.epoll()
        try:
            self._lane = LaneListener(keys, lane_path, self._epoll)
        except BaseException:
            self._epoll.close()
            raise
        self._far_descriptors = frozenset(far.descriptors)
        for descriptor in self._far_descriptors:
            self._epoll.register(descriptor, select.EPOLLIN)
        self._wakers: Sequence[HasFileno] = ()
        self._waker_descriptors: frozenset[int] = frozenset()
        self._lane_is_next = True
        self._closed = False

    def __repr__(self) -> str:
        return f"<LaneExchange {'closed' if self._closed else f'{self._lane.path} beside {self._far!r}'}>"

    @property
    def tcp_addresses(self) -> tuple[str, ...]:
        return self._far.tcp_addresses

    @property
    def ipc_address(self) -> str:
        return self._far.ipc_address

    @property
    def lane_path(self) -> str:
        return self._lane.path

    def statistics(self) -> dict[str, int]:
        lane = self._lane
        counts = {
            "messages_in": lane.messages_in,
            "messages_out": lane.messages_out,
            "rejected": lane.rejected,
        }
        return {name: count + counts.get(name, 0) for name, count in self._far.statistics().items()}

    def rejections(self) -> list[Rejected]:
        far = self._far.rejections()
        if not self._lane.rejections:
            return far
        near = list(self._lane.rejections)
        self._lane.rejections.clear()
        return [*far, *near][-_KEPT_REJECTIONS:]

    def wait(self, timeout_s: float | None, wakers: Sequence[HasFileno] = ()) -> None:
        if self._closed:
            return
        if wakers is not self._wakers:
            self._watch_wakers(wakers)
        lane = self._lane
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            lane.on_tick()
            # While messages are left nothing more is read: what a peer floods us with stays in its socket.
            reads = not lane.has_messages()
            has_some = self._far.look(signalled=False) or not reads
            events = self._epoll.poll(0 if has_some else self._left_s(deadline), _EVENTS_AT_ONCE)
            signalled = False
            for descriptor, mask in events:
                if lane.on_event(descriptor, mask, reads=reads):
                    continue
                if descriptor in self._far_descriptors:
                    signalled = True
                elif descriptor in self._waker_descriptors:
                    has_some = True
            if signalled and self._far.look(signalled=True):
                has_some = True
            if has_some or lane.has_messages() or (deadline is not None and time.monotonic() >= deadline):
                return

    def _left_s(self, deadline: float | None) -> float | None:
        lane_deadline = self._lane.next_deadline()
        if lane_deadline is not None and (deadline is None or lane_deadline < deadline):
            deadline = lane_deadline
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    def _watch_wakers(self, wakers: Sequence[HasFileno]) -> None:
        wanted = frozenset(waker.fileno() for waker in wakers)
        for descriptor in self._waker_descriptors:
            if self._lane.owns(descriptor):
                continue  # the waker was closed, and its number is a connection's by now
            with contextlib.suppress(OSError):  # a waker that was closed has left by itself
                self._epoll.unregister(descriptor)
        for descriptor in wanted:
            self._epoll.register(descriptor, select.EPOLLIN)
        self._wakers = wakers
        self._waker_descriptors = wanted

    def receive(self) -> Incoming | None:
        # In turns: a flood on one side does not hide the other.
        first, second = (self._lane, self._far) if self._lane_is_next else (self._far, self._lane)
        message = first.receive()
        if message is None:
            return second.receive()
        self._lane_is_next = not self._lane_is_next
        return message

    def send(self, route: Route, header: Buffer, frames: Sequence[Buffer] = ()) -> Delivery:
        if self._closed:
            return Delivery.GONE
        if route[:1] == LANE_PREFIX:
            return self._lane.send(route, header, frames)
        return self._far.send(route, header, frames)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._lane.close()
        self._epoll.close()
        self._far.close()
