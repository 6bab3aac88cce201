"""Who belongs to the cluster: engines, clients and hosts, and the rules by which they come, stay and go.

An identity is bound by hello: the first one brings a secret, and only who repeats it may speak for that
identity again. Where a peer is reached (its route) is the shell's business; here it is connected or not.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from typing import NamedTuple

from enginery.ids import ClientId, EngineId, EngineKey, HostKey
from enginery.protocol.messages import ENGINE_LIMIT, EngineHello, EngineInfo, HostHello, Versions
from enginery.protocol.ranges import NumberSet

ENDED_KEPT = 4096
FORMER_CLIENTS_KEPT = 100_000


class EngineRecord:
    """A registered engine."""

    __slots__ = ("engine", "host_key", "info", "key", "secret")

    def __init__(self, engine: EngineId, hello: EngineHello) -> None:
        self.engine = engine
        self.key = hello.key
        self.secret = hello.secret
        self.host_key = hello.host_key
        self.info = EngineInfo(engine, hello.key, hello.host, hello.pid)

    def __repr__(self) -> str:
        return f"<EngineRecord {self.engine} {self.key} on {self.info.host}>"


class ClientRecord:
    """A registered client."""

    __slots__ = ("client", "secret")

    def __init__(self, client: ClientId, secret: bytes) -> None:
        self.client = client
        self.secret = secret

    def __repr__(self) -> str:
        return f"<ClientRecord {self.client:08x}>"


class HostRecord(NamedTuple):
    """A host that has said hello."""

    secret: bytes
    name: str
    pid: int


class Registry:
    """All identities of one cluster."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self.engines: dict[EngineId, EngineRecord] = {}
        self.clients: dict[ClientId, ClientRecord] = {}
        self.hosts: dict[HostKey, HostRecord] = {}
        self._former: OrderedDict[ClientId, None] = OrderedDict()
        self._by_key: dict[EngineKey, EngineRecord] = {}
        self._ended: OrderedDict[EngineKey, None] = OrderedDict()  # processes that are known to be gone
        self._given = NumberSet()  # ids that engines have, have had, or were reserved for them

    def __repr__(self) -> str:
        return (
            f"<Registry of {len(self.engines)} engines, {len(self.clients)} clients, {len(self.hosts)} hosts>"
        )

    # ------------------------------------------------------------ engines

    def refuse_engine(self, hello: EngineHello) -> str:
        """Why this hello cannot be taken; empty if it can."""
        if hello.key in self._ended:
            return "this engine's process has ended"
        record = self._by_key.get(hello.key)
        if record is not None and not hmac.compare_digest(record.secret, hello.secret):
            return "another process has registered under this engine's key"
        return self.refuse_versions(hello.versions)

    def refuse_versions(self, versions: Versions) -> str:
        ours, theirs = self._versions.python, versions.python
        if ours != theirs:
            return (
                f"it runs Python {theirs[0]}.{theirs[1]} and the controller {ours[0]}.{ours[1]}; "
                "functions travel as byte code, so both must be the same: "
                "start it with the controller's Python"
            )
        return ""

    def on_engine_hello(self, hello: EngineHello) -> tuple[EngineRecord, bool]:
        """Register an engine whose hello was not refused. Returns its record and whether it is new."""
        record = self._by_key.get(hello.key)
        if record is not None:
            return record, False
        engine = hello.wanted
        if not 0 <= engine < ENGINE_LIMIT or engine in self.engines:
            engine = self._free_id()
        self._given.add(engine)
        record = EngineRecord(engine, hello)
        self.engines[engine] = self._by_key[hello.key] = record
        return record, True

    def on_engine_gone(self, key: EngineKey) -> EngineRecord | None:
        record = self._by_key.pop(key, None)
        if record is not None:
            del self.engines[record.engine]
        return record

    def on_engine_ended(self, key: EngineKey) -> None:
        """Its process is gone for good: a hello that is still on its way comes too late."""
        self._ended[key] = None
        if len(self._ended) > ENDED_KEPT:
            self._ended.popitem(last=False)

    def has_ended(self, key: EngineKey) -> bool:
        """Whether `on_engine_ended` has been said of it lately."""
        return key in self._ended

    def engine_by_key(self, key: EngineKey) -> EngineRecord | None:
        return self._by_key.get(key)

    def owns_engine(self, key: EngineKey, secret: bytes) -> bool:
        record = self._by_key.get(key)
        return record is not None and hmac.compare_digest(record.secret, secret)

    def reserve_engines(self, count: int) -> list[EngineId]:
        """Ids for engines that are about to be started."""
        return [self._free_id() for _ in range(count)]

    def on_given(self, engine: EngineId) -> None:
        """This id was an engine's in a former life of the controller."""
        self._given.add(engine)

    def _free_id(self) -> EngineId:
        """The lowest id that no engine has had: a call to one that has left must not find another."""
        engine = EngineId(self._given.low)
        if engine >= ENGINE_LIMIT:  # all have been used
            return next(EngineId(number) for number in range(ENGINE_LIMIT) if number not in self.engines)
        self._given.add(engine)
        return engine

    # ------------------------------------------------------------ clients and hosts

    def refuse_client(self, client: ClientId, secret: bytes, versions: Versions) -> str:
        record = self.clients.get(client)
        if record is not None and not hmac.compare_digest(record.secret, secret):
            return "another client has registered under this id"
        if client in self._former:
            # Its unfetched results are not here any more, and its tasks must not run a second time.
            return (
                "this client was away for so long that it was given up; its tasks have gone on, "
                "and a new client can ask for their results"
            )
        return self.refuse_versions(versions)

    def on_client_hello(self, client: ClientId, secret: bytes) -> tuple[ClientRecord, bool]:
        """Register a client whose hello was not refused. Returns its record and whether it is new."""
        record = self.clients.get(client)
        if record is not None:
            return record, False
        record = self.clients[client] = ClientRecord(client, secret)
        return record, True

    def has_client_left(self, client: ClientId) -> bool:
        """Whether a client of this id has left, or was given up."""
        return client in self._former

    def on_client_gone(self, client: ClientId) -> None:
        """It has left or was given up, and what it has not fetched is in the store only."""
        if self.clients.pop(client, None) is not None:
            self._former[client] = None
            if len(self._former) > FORMER_CLIENTS_KEPT:
                self._former.popitem(last=False)

    def on_host_hello(self, hello: HostHello) -> bool:
        """False if somebody else has this key."""
        record = HostRecord(hello.secret, hello.host, hello.pid)
        known = self.hosts.get(hello.key, record)
        if not hmac.compare_digest(known.secret, hello.secret):
            return False
        self.hosts[hello.key] = record  # its supervisor may be another one by now
        return True

    def on_host_gone(self, key: HostKey) -> None:
        self.hosts.pop(key, None)

    def check(self) -> None:
        assert {record.key for record in self.engines.values()} == self._by_key.keys()
        for engine, record in self.engines.items():
            assert record.engine == engine
            assert engine in self._given
