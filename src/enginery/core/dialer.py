"""The dialling end of a connection: say hello, keep in touch, and say hello again when the thread is lost.

The same for clients, engines, their control connections and hosts; what differs is the hello and what is done
with the other records. `greeting` until a welcome comes, `bound` after it, `refused` for ever.

The thread is lost when the controller asks for a hello (it does not know this route: it is new, or 0MQ has
silently made a new connection), when messages are missing, or when a message is torn. Then a new epoch begins
with a new hello, on the same connection; where nothing is heard at all, on a new one (`wants_redial`). Only
after the welcome does the owner say again what the other side has not acknowledged.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from enginery.protocol.codec import Buffer, Decoder, MalformedMessage, VersionMismatch
from enginery.protocol.link import Link, Message, Verdict
from enginery.protocol.messages import (
    ClientWelcome,
    ControlWelcome,
    EngineWelcome,
    HelloFirst,
    HostWelcome,
    Ping,
    PutBlob,
    Record,
    Refused,
)

PING_S = 4.0
"""Silence after which the peer is asked for a sign of life."""
PROBE_S = 1.0
"""The controller's probes come less often than this; what comes sooner after a ping is the answer to it."""
REDIAL_S = 12.0
"""Silence after which the connection is made anew."""
GREETING_S = 3.0
"""How long a hello may stay unanswered before it is said on a new connection."""

Body = TypeVar("Body")
_WELCOMES = (ClientWelcome, EngineWelcome, ControlWelcome, HostWelcome)


class DialState(enum.Enum):
    GREETING = "greeting"
    BOUND = "bound"
    REFUSED = "refused"


class Dialer(Generic[Body]):
    """One dialled connection's side of the conversation."""

    def __init__(self, decoder: Decoder[Body], make_hello: Callable[[], Record]) -> None:
        self._decoder = decoder
        self._make_hello = make_hello
        self.link = Link()
        self.state = DialState.GREETING
        self.refusal = ""
        self.wants_redial = False
        self._heard_at = 0.0
        self._pinged_at = 0.0

    def __repr__(self) -> str:
        return f"<Dialer {self.state.value}, epoch {self.link.epoch}>"

    @property
    def is_bound(self) -> bool:
        return self.state is DialState.BOUND

    def greet(self, *, now: float) -> None:
        """Begin a new epoch with a hello: at the start, and after the shell has dialled anew."""
        if self.state is DialState.REFUSED:
            return
        self.state = DialState.GREETING
        self.wants_redial = False
        self.link.restart(self.link.epoch + 1)
        self.link.put(self._make_hello())
        self._heard_at = self._pinged_at = now

    def on_message(
        self, header: Buffer, frames: Sequence[Buffer], *, now: float
    ) -> list[tuple[Body, Buffer | None]]:
        """Take a message; returns the records to act on, pieces of blobs with their frames.

        A welcome is among them: the owner answers it by saying again what is not acknowledged.
        """
        try:
            envelope = self._decoder.decode(header, frames)
        except VersionMismatch as error:
            self.state, self.refusal = DialState.REFUSED, str(error)
            return []
        except MalformedMessage:
            self.greet(now=now)
            return []
        records = envelope.records
        if len(records) == 1 and isinstance(records[0], (HelloFirst, Refused)):
            self._on_rejected(records[0], envelope.epoch, now)
            return []
        verdict = self.link.on_message(envelope, frames, header_bytes=len(header))
        if verdict is Verdict.GAP:
            self.greet(now=now)
        if verdict is not Verdict.FRESH:
            return []
        self._heard_at = now
        if not frames and self.state is DialState.BOUND:
            if any(type(record) is Ping for record in records):
                self._on_ping(now)
            return [(record, None) for record in records if type(record) is not Ping]
        taken: list[tuple[Body, Buffer | None]] = []
        remaining = iter(frames)
        for record in records:
            if type(record) is Ping:
                continue
            if isinstance(record, _WELCOMES):
                self.state = DialState.BOUND
            taken.append((record, next(remaining) if type(record) is PutBlob else None))
        return taken

    def next_message(self) -> Message | None:
        """What is to be sent next, or None."""
        return self.link.next_message()

    def next_deadline(self) -> float | None:
        if self.state is DialState.REFUSED or self.wants_redial:
            return None
        if self.state is DialState.GREETING:
            return self._heard_at + GREETING_S
        return min(max(self._heard_at, self._pinged_at) + PING_S, self._heard_at + REDIAL_S)

    def on_tick(self, *, now: float) -> None:
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return
        if self.state is DialState.GREETING or now >= self._heard_at + REDIAL_S:
            self.wants_redial = True
            return
        self._pinged_at = now
        self.link.put(Ping())

    def on_asleep(self, *, now: float) -> None:
        """The owner could not listen for a while (it ran user code): silence until now proves nothing."""
        self._heard_at = max(self._heard_at, now - PING_S)

    def _on_ping(self, now: float) -> None:
        """Answer a probe, not an answer: what was lost on its way shows by the number of the next message."""
        if now >= self._pinged_at + PROBE_S:
            self._pinged_at = now
            self.link.put(Ping())

    def _on_rejected(self, record: HelloFirst | Refused, epoch: int, now: float) -> None:
        if epoch != self.link.epoch:
            return  # about an epoch that is over
        if isinstance(record, Refused):
            self.state = DialState.REFUSED
            self.refusal = record.reason
        else:
            self.greet(now=now)
