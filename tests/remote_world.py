"""A shared world with hosts elsewhere: their engines share memory with their supervisor alone.

What a supervisor does with pieces is done by the real `HandingOn`; its segments are entries of a dictionary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from enginery.host.handing_on import HandingOn
from enginery.ids import NO_ENGINE, EngineId, EngineKey, HostKey, host_pool
from enginery.protocol.codec import Buffer
from enginery.protocol.messages import DropBlobs, EngineHello, FreeSegments, HostHello, PutBlob, ToHost
from enginery.testing import Fate, ScriptedEngine, ScriptedHost
from enginery.transport.shared_memory import Segment
from tests.shared_world import SharedWorld, SharingClient, SharingEngine, VirtualMemory, VirtualPool


class VirtualDraft:
    """A segment that is written piece by piece."""

    def __init__(self, pool: HostPool, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.data = b""
        self._pool = pool

    @property
    def written_bytes(self) -> int:
        return len(self.data)

    def add(self, piece: memoryview) -> None:
        if not self._pool.has_room:
            raise OSError("no room")
        self.data += piece

    def lend(self) -> Segment | None:
        assert len(self.data) == self.size_bytes
        self._pool.drafts.remove(self)
        return self._pool.write(self.data)

    def give_up(self) -> None:
        self._pool.drafts.remove(self)


class HostPool(VirtualPool):
    """A supervisor's `Sharing`."""

    def __init__(self, name: str, memory: VirtualMemory) -> None:
        super().__init__(name, memory)
        self.drafts: list[VirtualDraft] = []
        memory.pools[name] = self

    @property
    def has_room(self) -> bool:
        return self._memory.has_room

    def draft(self, size_bytes: int) -> VirtualDraft | None:
        if not self.has_room:
            return None
        self.drafts.append(VirtualDraft(self, size_bytes))
        return self.drafts[-1]

    def lent(self) -> list[str]:
        return list(self.segments)


class HandingHost(ScriptedHost):
    """A supervisor that hands blobs on."""

    def __init__(self, memory: VirtualMemory, *arguments: Any, key: HostKey, **more: Any) -> None:
        self.memory = memory
        self.pool = HostPool(host_pool(key), memory)
        self.handing_on = HandingOn(self.pool)  # type: ignore[arg-type]
        super().__init__(*arguments, key=key, **more)

    def _on_record(self, record: ToHost, frame: Buffer | None = None) -> None:
        if frame is not None:
            assert isinstance(record, PutBlob)
            answer = self.handing_on.on_piece(record, frame)
            if answer is not None:
                self.conversation.link.put(answer)
        elif isinstance(record, FreeSegments):
            self.handing_on.on_freed(record.segments)
        elif isinstance(record, DropBlobs):
            self.handing_on.on_dropped(record.blobs)
        else:
            super()._on_record(record)

    def _hello(self) -> HostHello:
        hello = super()._hello()
        hello.lent = self.handing_on.begin_anew()
        hello.pool = self.handing_on.pool
        return hello


class RemoteEngine(SharingEngine):
    """An engine that reads what its host has, and returns what it has as frames."""

    def _join(self, memory: VirtualMemory, key: EngineKey) -> VirtualPool:
        pool = VirtualPool("", memory)
        pool.is_alive = False  # it writes nothing
        return pool

    def _hello(self) -> EngineHello:
        hello = super()._hello()
        hello.maps_host = True
        return hello


class RemoteWorld(SharedWorld):
    """Hosts are elsewhere; every third engine of theirs reads nothing."""

    def __init__(self, *, fates: Mapping[int, Fate] | None = None) -> None:
        super().__init__(fates=fates)
        self.there = VirtualMemory()

    def make_host(self, name: str, **more: Any) -> ScriptedHost:
        return HandingHost(self.there, name, self.network, self.clock, **more)

    def engine(
        self, *, wanted: EngineId = NO_ENGINE, host: ScriptedHost | None = None, speed: float = 1.0
    ) -> ScriptedEngine:
        number = len(self.engines)
        if host is None or number % 3 == 2:
            return super().engine(wanted=wanted, host=host, speed=speed)
        engine = RemoteEngine(
            self.there,
            f"engine{number}",
            self.network,
            self.clock,
            self.runs,
            key=EngineKey(f"{number:016x}"),
            wanted=wanted,
            host_key=host.key,
            speed=speed,
        )
        self.peers.append(engine)
        return engine

    @property
    def readers(self) -> list[RemoteEngine]:
        return [peer for peer in self.peers if isinstance(peer, RemoteEngine)]

    @property
    def sharers(self) -> list[SharingClient | SharingEngine]:
        return [peer for peer in super().sharers if not isinstance(peer, RemoteEngine)]

    def check_nothing_left(self) -> None:
        """Nor anything on the hosts."""
        super().check_nothing_left()
        for host in self.hosts:
            assert isinstance(host, HandingHost)
            assert not host.pool.segments, host.pool.segments.keys()
            assert not host.pool.drafts
            assert not host.handing_on._drafts
        relays = self.state.relays
        assert not relays._held
        assert not any(known.under_way for known in relays._hosts.values())
        for engine in self.readers:
            if engine.is_alive and not engine.sharing.is_blind:
                assert engine.engine in relays._host_of, f"{engine} gets frames, and could map"
