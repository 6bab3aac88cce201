"""A hub without a service: peers say hello and records, and what is on their links is read back."""

from __future__ import annotations

from enginery.controller.inquiries import Inquiries
from enginery.controller.store.memory import MemoryStore
from enginery.core.hub import Hub
from enginery.core.recording import Commit
from enginery.core.state import Identity
from enginery.ids import BlobId, ClientId, EngineId, EngineKey, HostKey
from enginery.protocol import messages as m
from enginery.protocol.history import HistoryFact
from enginery.protocol.link import Link, cut_blob
from tests.unit.core.builders import SOURCE, F

VERSIONS = m.Versions("1", (3, 11))


class HubBench:
    """`check` runs after every step; time is `now`."""

    def __init__(self) -> None:
        self.now = 10.0
        self.hub = Hub(cluster="test", controller="key", versions=VERSIONS, now=self.now)
        self.links: dict[Identity, Link] = {}
        self.store = MemoryStore()
        self._inquiries = Inquiries(self.store, on_found=lambda: None)

    # ------------------------------------------------------------ peers

    def hello(self, hello: m.Record) -> Identity:
        link = Link()
        identity, refusal = self.hub.on_hello(hello, link, now=self.now)
        assert not refusal, refusal
        self.links[identity] = link
        if isinstance(hello, m.EngineHello):
            self.hub.state.on_known(hello.key, now=self.now)  # the history is quick
        self.hub.check()
        return identity

    def refused(self, hello: m.Record) -> str:
        _, refusal = self.hub.on_hello(hello, Link(), now=self.now)
        assert refusal
        self.hub.check()
        return refusal

    def client(self, number: int = 1, *, received: int = 0, secret: bytes = b"s") -> Identity:
        return self.hello(m.ClientHello(ClientId(number), secret, VERSIONS, 1, received))

    def engine(
        self,
        key: str = "e0",
        *,
        wanted: int = -1,
        host: str = "",
        held: tuple[tuple[int, int], ...] = (),
        first_result: int = 0,
        secret: bytes = b"s",
    ) -> Identity:
        return self.hello(
            m.EngineHello(
                EngineKey(key), secret, VERSIONS, "host", HostKey(host), 1, EngineId(wanted), list(held),
                first_result,
            )  # type: ignore[arg-type]
        )  # fmt: skip

    def control(self, key: str = "e0", *, secret: bytes = b"s") -> Identity:
        return self.hello(m.ControlHello(EngineKey(key), secret))

    def host(self, key: str = "h0", *, secret: bytes = b"s") -> Identity:
        return self.hello(m.HostHello(HostKey(key), secret, "host", 1, []))

    # ------------------------------------------------------------ what they say

    def say(self, peer: Identity, *records: m.Record) -> None:
        for record in records:
            self.hub.on_record(peer, record, None, now=self.now)
            self.hub.check()

    def put(self, peer: Identity, blob: BlobId = F, data: bytes = SOURCE, *, keep: bool = True) -> None:
        for piece, frame in cut_blob(blob, data, keep=keep):
            self.hub.on_record(peer, piece, frame, now=self.now)
            self.hub.check()

    def lose(self, peer: Identity) -> None:
        self.hub.on_disconnected(peer, now=self.now)
        self.links.pop(peer, None)
        self.hub.check()

    def wait(self, seconds: float, *, gone: tuple[Identity, ...] = ()) -> None:
        """Let deadlines come; `gone` are peers that a probe finds without a route."""
        end = self.now + seconds
        while (deadline := self.hub.next_deadline()) is not None and deadline <= end:
            self.now = max(deadline, self.now)
            if self.hub.is_finished(now=self.now):
                break
            self.hub.on_tick(now=self.now)
            for peer in gone:
                self.lose(peer)
            self.hub.check()
        self.now = end

    # ------------------------------------------------------------ what they hear

    def heard(self, peer: Identity) -> list[m.Record]:
        """Let the hub decide; what is on this peer's link since the last time."""
        self.hub.settle(now=self.now)
        self.hub.check()
        link = self.links[peer]
        records = [entry[0] for entry in (*link._small, *link._bulk)]
        link.restart(0)
        return records

    def heard_names(self, peer: Identity) -> list[str]:
        return [type(record).__name__ for record in self.heard(peer)]

    def commit(self) -> list[HistoryFact]:
        """Store the facts there are, tell the hub, and answer what it asks the history."""
        facts: list[HistoryFact] = []
        self.hub.settle(now=self.now)
        batch = self.hub.take_facts()
        if batch is not None:
            facts, commit, buffers = batch
            assert self.store.append(facts, buffers=buffers)
            self.hub.on_committed(commit, now=self.now)
        while self.hub.has_inquiries:
            for order in self.hub.take_inquiries():
                for found in self._inquiries.pages(order):
                    self.hub.on_found(found, now=self.now)
                    self.hub.check()
            self.hub.settle(now=self.now)
        return facts

    def take_commit(self) -> Commit:
        batch = self.hub.take_facts()
        assert batch is not None
        return batch[1]
