"""Which connection speaks for whom.

A route is 0MQ's own random name for one connection. It means nothing until a hello binds it to an identity; a
newer hello of the same identity takes over. The role comes from the transport's authentication of each
message and decides which union of records the message is decoded with, so nobody can say what his role does
not allow.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from enginery.core.state import Identity
from enginery.protocol import codec
from enginery.protocol.codec import Buffer, Decoder, MalformedMessage
from enginery.protocol.link import Link
from enginery.protocol.messages import (
    ClientHello,
    ControlHello,
    EngineHello,
    Envelope,
    HostHello,
    Record,
)
from enginery.transport.channel import Role, Route

HELLOS = (ClientHello, EngineHello, ControlHello, HostHello)


class Bound:
    """A connection that has said hello."""

    __slots__ = ("decode", "identity", "key", "kind", "link", "role", "route")

    def __init__(
        self, route: Route, role: Role, identity: Identity, decoder: Decoder[Any], epoch: int
    ) -> None:
        self.route = route
        self.role = role
        self.identity = identity
        self.kind: str = identity[0]
        self.key: Any = identity[1]
        self.link = Link(epoch)
        self.decode: Callable[..., Envelope[Any]] = decoder.decode

    def __repr__(self) -> str:
        return f"<Bound {self.kind} {self.key}, {self.link!r}>"


class Routes:
    """All bound connections, by route and by identity."""

    def __init__(self) -> None:
        self._by_route: dict[Route, Bound] = {}
        self._by_identity: dict[Identity, Bound] = {}
        self._from_client = codec.from_client()
        self._from_engine = codec.from_engine()
        self._from_control = codec.from_control()
        self._from_host = codec.from_host()

    def __len__(self) -> int:
        return len(self._by_route)

    def __repr__(self) -> str:
        return f"<Routes of {len(self)} connections>"

    def get(self, route: Route) -> Bound | None:
        return self._by_route.get(route)

    def of(self, kind: str, key: Hashable) -> Bound | None:
        return self._by_identity.get((kind, key))

    def all(self) -> list[Bound]:
        return list(self._by_route.values())

    def decode_stranger(self, role: Role, header: Buffer, frames: Sequence[Buffer]) -> Envelope[Any]:
        """Decode a message of a connection that is not bound.

        Raises MalformedMessage if its role has no such message.
        """
        if role is Role.CLIENT:
            return self._from_client.decode(header, frames)
        if role is Role.HOST:
            return self._from_host.decode(header, frames)
        try:
            return self._from_engine.decode(header, frames)
        except MalformedMessage:
            return self._from_control.decode(header, frames)

    def bind(self, route: Route, role: Role, hello: Record, identity: Identity, epoch: int) -> Bound:
        decoders: dict[type, Decoder[Any]] = {
            ClientHello: self._from_client,
            EngineHello: self._from_engine,
            ControlHello: self._from_control,
            HostHello: self._from_host,
        }
        decoder = decoders[type(hello)]
        older = self._by_identity.get(identity)
        if older is not None:
            self._by_route.pop(older.route, None)
        bound = Bound(route, role, identity, decoder, epoch)
        self._by_route[route] = self._by_identity[identity] = bound
        return bound

    def unbind(self, bound: Bound) -> None:
        if self._by_route.get(bound.route) is bound:
            del self._by_route[bound.route]
        if self._by_identity.get(bound.identity) is bound:
            del self._by_identity[bound.identity]
