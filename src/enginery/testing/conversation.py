"""One scripted peer's connection: a `Dialer` on a virtual channel, driven as the shells drive theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from enginery.core.dialer import Dialer
from enginery.protocol.codec import Buffer, Decoder
from enginery.protocol.link import Link
from enginery.protocol.messages import Record
from enginery.testing.clock import VirtualClock
from enginery.testing.network import VirtualChannel

Body = TypeVar("Body")


class Conversation(Generic[Body]):
    """Receive, keep in touch, send: the same for all peers."""

    def __init__(
        self,
        channel: VirtualChannel,
        clock: VirtualClock,
        decoder: Decoder[Body],
        make_hello: Callable[[], Record],
    ) -> None:
        self.channel = channel
        self.dialer: Dialer[Body] = Dialer(decoder, make_hello)
        self._clock = clock
        self._begun = False

    def __repr__(self) -> str:
        return f"<Conversation {self.channel.name}, {self.dialer!r}>"

    @property
    def link(self) -> Link:
        return self.dialer.link

    @property
    def is_bound(self) -> bool:
        return self.dialer.is_bound

    @property
    def has_begun(self) -> bool:
        return self._begun

    def begin(self) -> None:
        """Say hello, the first time or anew."""
        self._begun = True
        self.dialer.greet(now=self._clock.now())

    def receive(self) -> Iterator[tuple[Body, Buffer | None]]:
        """All records that have come, one by one."""
        while (message := self.channel.receive()) is not None:
            yield from self.dialer.on_message(*message, now=self._clock.now())

    def is_due(self) -> bool:
        deadline = self.next_deadline()
        return self.channel.pending() or (deadline is not None and deadline <= self._clock.now())

    def keep_in_touch(self) -> None:
        now = self._clock.now()
        if not self._begun:
            return
        self.dialer.on_tick(now=now)
        if self.dialer.wants_redial:
            self.channel.redial()
            self.dialer.greet(now=now)

    def send(self) -> bool:
        """Send what waits; False if there was nothing."""
        sent = False
        while self._begun and (message := self.dialer.next_message()) is not None:
            self.channel.send(*message)
            sent = True
        return sent

    def next_deadline(self) -> float | None:
        return self.dialer.next_deadline() if self._begun else None

    def close(self, linger_s: float = 0.0) -> None:
        self._begun = False
        self.channel.close(linger_s)
