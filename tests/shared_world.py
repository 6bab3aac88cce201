"""A world whose peers are on one host and share memory: segments are entries of a dictionary.

A segment's bytes are gone as soon as its writer may use it again: who is told of it too late finds nothing.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from functools import partial
from typing import Any

from enginery.core.submissions import Copies
from enginery.core.workload import Attempt
from enginery.ids import NO_ENGINE, BlobId, ClientId, EngineId, EngineKey, HostKey, client_pool, engine_pool
from enginery.protocol.codec import Buffer
from enginery.protocol.link import cut_blob
from enginery.protocol.messages import (
    BlobsMissing,
    ClientHello,
    DropBlobs,
    EngineCall,
    EngineHello,
    EngineWelcome,
    Finished,
    FreeSegments,
    Results,
    RunOptions,
    ShareBlob,
    Status,
    ToClient,
    ToEngine,
)
from enginery.testing import Fate, ScriptedClient, ScriptedEngine, ScriptedHost
from enginery.testing.engines import Running
from enginery.transport.shared_memory import Segment, SegmentGone
from tests.world import World

SHARED_FROM_BYTES = 1000
COPY_S = (0.0, 0.004, 0.0007)
"""How long copies take, in turns; and so long again until their caller is told."""


class VirtualMemory:
    """What `SharedDirectory` is to a controller, and where the pools are."""

    def __init__(self) -> None:
        self.pools: dict[str, VirtualPool] = {}
        self.has_room = True

    def join(self, owner: str) -> VirtualPool:
        pool = self.pools[owner] = VirtualPool(owner, self)
        return pool

    def read(self, name: str, size_bytes: int) -> memoryview:
        pool = self.pools.get(name.partition("/")[0])
        data = None if pool is None else pool.segments.get(name)
        if data is None:
            raise SegmentGone(name)
        assert len(data) == size_bytes
        return memoryview(data)

    def clear_pool(self, owner: str, *, spare: Container[str]) -> bool:
        pool = self.pools.get(owner)
        if pool is None:
            return True
        if pool.is_alive:
            return False
        pool.segments = {name: data for name, data in pool.segments.items() if name in spare}
        if not pool.segments:
            del self.pools[owner]
        return True


class VirtualPool:
    """One peer's `Sharing`. A blind one cannot map what others have written."""

    def __init__(self, name: str, memory: VirtualMemory) -> None:
        self.name = name
        self.is_alive = True
        self.is_blind = False
        self.segments: dict[str, bytes] = {}
        self._memory = memory
        self._written = 0

    def write(self, data: Buffer) -> Segment | None:
        if not self._memory.has_room or not self.is_alive:
            return None
        self._written += 1
        name = f"{self.name}/{self._written}.0"
        self.segments[name] = bytes(data)
        return Segment(name, len(data))

    def read(self, record: ShareBlob) -> memoryview:
        if self.is_blind:
            raise SegmentGone(record.segment)
        return self._memory.read(record.segment, record.size_bytes)

    @property
    def has_written(self) -> bool:
        """Before that there is no pool that anybody could find."""
        return self._written > 0

    def is_lent(self, name: str) -> bool:
        return name in self.segments

    def release(self, names: Iterable[str]) -> None:
        for name in names:
            self.segments.pop(name, None)


class SharingClient(ScriptedClient):
    """A client that writes and reads segments as a session does; copies take a while."""

    def __init__(self, memory: VirtualMemory, *arguments: Any, client: ClientId) -> None:
        self.sharing = memory.join(client_pool(client))
        self.has_missed = False
        self._can_map = True
        self._copies = 0
        super().__init__(*arguments, client=client)
        self.ledger._is_lent = self.sharing.is_lent

    def kill(self) -> None:
        super().kill()
        self.sharing.is_alive = False

    def turn(self) -> bool:
        if not self.is_alive:
            return False
        active = super().turn()
        for copies in self.ledger.take_copies():
            took_s = COPY_S[self._copies % len(COPY_S)]
            self._copies += 1
            self._clock.call_at(self._clock.now() + took_s, partial(self._copy, copies, took_s))
        self.sharing.release(self.ledger.take_unused_segments())
        if self.has_missed:
            self.conversation.begin()
            active = True
        return active

    def _copy(self, copies: Copies, wait_s: float) -> None:
        written = {blob.blob_id: self.sharing.write(blob.data) for blob in copies.blobs}
        segments = {blob: segment.name for blob, segment in written.items() if segment is not None}
        self._clock.call_at(self._clock.now() + wait_s, partial(self.ledger.on_copied, copies, segments))

    def _on_record(self, record: ToClient, frame: Buffer | None) -> None:
        if isinstance(record, ShareBlob):
            try:
                self._blobs.put(record.blob, self.sharing.read(record), keep=record.keep)
            except SegmentGone:
                self._can_map = False
                self.has_missed = True
        elif isinstance(record, FreeSegments):
            self.ledger.on_freed(record.segments)
            self.sharing.release(record.segments)
        elif not (self.has_missed and isinstance(record, Finished)):
            super()._on_record(record, frame)

    def _hello(self) -> ClientHello:
        self.has_missed = False
        hello = super()._hello()
        hello.pool = self.sharing.name if self._can_map else ""
        self.ledger.shared_from_bytes = SHARED_FROM_BYTES if hello.pool else 0
        unaccepted = self.ledger.unaccepted_segments()
        hello.lent = [name for name in self.sharing.segments if name not in unaccepted]
        return hello


class SharingEngine(ScriptedEngine):
    """An engine that writes and reads segments as the real one does."""

    def __init__(self, memory: VirtualMemory, *arguments: Any, key: EngineKey, **more: Any) -> None:
        self.sharing = self._join(memory, key)
        self._unreadable: set[BlobId] = set()
        self._segments: dict[Attempt, str] = {}
        super().__init__(*arguments, key=key, **more)

    def _join(self, memory: VirtualMemory, key: EngineKey) -> VirtualPool:
        return memory.join(engine_pool(key))

    def kill(self) -> None:
        super().kill()
        self.sharing.is_alive = False

    def _on_record(self, record: ToEngine, frame: Buffer | None) -> None:
        if isinstance(record, ShareBlob):
            try:
                self.blobs.put(record.blob, self.sharing.read(record), keep=record.keep)
            except SegmentGone:
                self._unreadable.add(record.blob)
        elif isinstance(record, FreeSegments):
            self.sharing.release(record.segments)
        else:
            if isinstance(record, DropBlobs):
                self._unreadable.difference_update(record.blobs)
            super()._on_record(record, frame)

    def _on_welcome(self, welcome: EngineWelcome) -> None:
        self._unreadable.clear()
        super()._on_welcome(welcome)

    def _on_call(self, options: RunOptions, call: EngineCall) -> None:
        missing = [blob for blob in (options.function, *call.blobs) if self.blobs.get(blob) is None]
        if self._unreadable.isdisjoint(missing):
            super()._on_call(options, call)
        else:
            self.tasks.link.put(BlobsMissing(call.task, call.attempt, missing, unreadable=True))

    def _finish(
        self, running: Running, status: Status, payload: bytes, blob: bytes = b"", error: str = ""
    ) -> None:
        super()._finish(running, status, payload, blob, error)
        if len(blob) >= SHARED_FROM_BYTES and (segment := self.sharing.write(blob)) is not None:
            self._segments[running.attempt] = segment.name

    def _on_stored(self, below: int) -> None:
        super()._on_stored(below)
        for attempt in self._segments.keys() - self._result_blobs.keys():
            del self._segments[attempt]

    def _report(self) -> None:
        if not self.tasks.is_bound:
            return
        link = self.tasks.link
        for first, results, weight in self.workload.take_results():
            for result in results if results[0].blobs else ():
                attempt = result.task, result.attempt
                blob, data = self._result_blobs[attempt]
                if attempt in self._segments:
                    link.put(ShareBlob(blob, len(data), False, self._segments[attempt]))
                else:
                    link.put_blob(cut_blob(blob, data, keep=False))
            link.put_after_bulk(Results(first, results), weight)

    def _hello(self) -> EngineHello:
        hello = super()._hello()
        hello.pool = self.sharing.name
        unsafe = set(self._segments.values())
        hello.lent = [name for name in self.sharing.segments if name not in unsafe]
        return hello


class SharedWorld(World):
    """Every third client and every third engine shares nothing, beside those that do."""

    def __init__(self, *, fates: Mapping[int, Fate] | None = None) -> None:
        super().__init__(fates=fates)
        self.memory = VirtualMemory()
        self.controller._shared = self.memory  # type: ignore[assignment]
        self.state._read_shared = self.controller._read_shared

    def client(self) -> ScriptedClient:
        number = len(self.clients) + 1
        if number % 3 == 0:
            return super().client()
        name, key = f"client{number}", ClientId(number)
        client = SharingClient(self.memory, name, self.network, self.clock, client=key)
        self.peers.append(client)
        return client

    def engine(
        self, *, wanted: EngineId = NO_ENGINE, host: ScriptedHost | None = None, speed: float = 1.0
    ) -> ScriptedEngine:
        number = len(self.engines)
        if number % 3 == 2:
            return super().engine(wanted=wanted, host=host, speed=speed)
        engine = SharingEngine(
            self.memory,
            f"engine{number}",
            self.network,
            self.clock,
            self.runs,
            key=EngineKey(f"{number:016x}"),
            wanted=wanted,
            host_key=HostKey("") if host is None else host.key,
            speed=speed,
        )
        self.peers.append(engine)
        return engine

    @property
    def sharers(self) -> list[SharingClient | SharingEngine]:
        return [peer for peer in self.peers if isinstance(peer, (SharingClient, SharingEngine))]

    def check_nothing_left(self) -> None:
        """Nor any segment: not of the living, and of the dead not even their pools."""
        super().check_nothing_left()
        self.settle()
        for blob in list(self.state.blobs._idle):
            self.state.blobs._forget(blob)  # what is kept on purpose
        self.settle()
        living = {peer.sharing.name: peer.sharing for peer in self.sharers if peer.is_alive}
        assert {name: [*pool.segments] for name, pool in living.items() if pool.segments} == {}
        written = {name for name, pool in self.memory.pools.items() if pool.has_written}
        assert written <= living.keys(), "a pool has outlived its owner"
        for peer in self.sharers:
            if peer.is_alive and not peer.sharing.is_blind:
                identity = (
                    ("client", peer.client) if isinstance(peer, SharingClient) else ("engine", peer.engine)
                )
                assert self.state.custody.is_reader(identity), f"{peer} gets frames, and could map"
