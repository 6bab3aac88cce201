"""Answers 0MQ's question whether a newcomer may come in, and as whom (ZAP, RFC 27).

0MQ asks once per connection, on a socket bound in the controller's own poll loop; the answer's user id then
stands on every message of that connection.
"""

from __future__ import annotations

from collections.abc import Sequence

import zmq
from zmq.utils import z85

from enginery.transport.channel import Rejected, Role
from enginery.transport.keys import ClusterKeys

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
DOMAIN = b"enginery"
_FIRST_CREDENTIAL = 8  # after route, delimiter, version, number, domain, address, identity, mechanism


class Authenticator:
    """Turns credentials into roles."""

    def __init__(self, keys: ClusterKeys) -> None:
        self._keys = keys

    def answer(self, question: Sequence[bytes]) -> tuple[list[bytes], Rejected | None]:
        """The reply to one question, and whom it turned away."""
        if len(question) < _FIRST_CREDENTIAL:
            return [], Rejected("an authentication request was incomplete", "")
        route, _, version, number, domain, address, _, mechanism = question[:_FIRST_CREDENTIAL]
        role = self.decide(mechanism, question[_FIRST_CREDENTIAL:]) if domain == DOMAIN else None
        head = [route, b"", version, number]
        if role is None:
            peer = address.decode("utf-8", "replace")
            rejected = Rejected(f"its {_credential(mechanism)} is not one of this cluster", peer)
            return [*head, b"400", b"not one of this cluster's peers", b"", b""], rejected
        return [*head, b"200", b"OK", role.value.encode(), b""], None

    def decide(self, mechanism: bytes, credentials: Sequence[bytes]) -> Role | None:
        """The role that these credentials prove."""
        if mechanism == b"CURVE" and len(credentials) == 1 and len(credentials[0]) == 32:
            return self._keys.role_of_key(z85.encode(credentials[0]).decode())
        if mechanism == b"PLAIN" and len(credentials) == 2:
            name, token = (part.decode("utf-8", "replace") for part in credentials)
            return self._keys.role_of_token(name, token)
        return None


def open_questions(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    """The socket on which 0MQ asks. To be bound before any server socket: without it every key is let in."""
    socket = context.socket(zmq.ROUTER)
    socket.linger = 0
    socket.bind(ZAP_ENDPOINT)
    return socket


def _credential(mechanism: bytes) -> str:
    return {b"CURVE": "key", b"PLAIN": "token"}.get(mechanism, "credential")
