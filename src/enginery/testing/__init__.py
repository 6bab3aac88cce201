"""Fakes for tests, public and tested themselves: virtual time, a network with faults, scripted peers.

They encode for real and run the real decisions (`core`); only sockets, threads and user code are replaced.
What they cannot offer is a controller, which lives above them: whoever has one drives it with
`VirtualNetwork.exchange` and `VirtualClock.now`.
"""

from __future__ import annotations

from enginery.testing.clients import Outcome, ScriptedClient
from enginery.testing.clock import VirtualClock
from enginery.testing.conversation import Conversation
from enginery.testing.deeds import Deed, RunLog
from enginery.testing.engines import ScriptedEngine
from enginery.testing.hosts import ScriptedHost
from enginery.testing.network import Fate, Passing, VirtualChannel, VirtualExchange, VirtualNetwork

__all__ = [
    "Conversation",
    "Deed",
    "Fate",
    "Outcome",
    "Passing",
    "RunLog",
    "ScriptedClient",
    "ScriptedEngine",
    "ScriptedHost",
    "VirtualChannel",
    "VirtualClock",
    "VirtualExchange",
    "VirtualNetwork",
]
