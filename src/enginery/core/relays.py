"""Blobs that go to a host once, whose supervisor hands them on to its engines.

Problem: engines that share no memory with the controller each get every blob as frames. Four of them on one
machine made a broadcast cross the network four times.

Choice: a supervisor has a pool of segments on its own host, which its engines map. A large blob that several
of them need is sent to the supervisor; from then on the blob has a *copy* there (see `blobs`), and engines
are told its name. What cannot be had that way goes as frames, as it always did: a supervisor without room
declines, one that is away is asked for nothing, an engine that cannot map gets no names.

A task that needs a blob which is still on its way to its host is *held* here, and so are the calls to that
very engine that come behind it: their order is theirs. Other tasks pass. A hold ends when the blob is there,
is declined, or the host is away. Who says hello again is sent everything that he has not, so nothing of his
is held any more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from enginery.core.blobs import BlobTable
from enginery.core.tasks import Task
from enginery.ids import NO_ENGINE, BlobId, EngineId, HostKey, host_pool

LEAST_BYTES = 1 << 20
"""Smaller blobs go to each engine: their frame costs less than one more step on the way."""
LEAST_ENGINES = 2

Run = tuple[Task, bool]
"""A task for an engine, and whether that is to say when it begins."""


class RelayOutbox(Protocol):
    def relay(self, host: HostKey, blob: BlobId) -> bool:
        """Send a blob to a host; False if its bytes are lost."""

    def stop_relaying(self, host: HostKey, blob: BlobId) -> None:
        """Send no more of a blob, and have the host forget what has come."""


class _Host:
    """A supervisor that is connected and can hand on."""

    __slots__ = ("declined_bytes", "under_way")

    def __init__(self) -> None:
        self.under_way: dict[BlobId, int] = {}  # with their sizes
        self.declined_bytes: int | None = None  # what is as large is not tried before something was freed


class Relays:
    """What is on its way to hosts, who can read what is there, and which tasks wait for it."""

    def __init__(self, blobs: BlobTable) -> None:
        self._blobs = blobs
        self._hosts: dict[HostKey, _Host] = {}
        self._host_of: dict[EngineId, HostKey] = {}  # engines that can map what their host has
        self._readers: dict[HostKey, set[EngineId]] = {}
        self._held: dict[EngineId, list[Run]] = {}
        self._news: dict[EngineId, None] = {}  # some of what is held for these may go now

    def __repr__(self) -> str:
        under_way = sum(len(host.under_way) for host in self._hosts.values())
        return (
            f"<Relays of {len(self._hosts)} hosts to {len(self._host_of)} engines, {under_way} under way, "
            f"{sum(map(len, self._held.values()))} tasks held>"
        )

    # ------------------------------------------------------------ who is there

    def on_host_hello(self, host: HostKey, pool: str) -> None:
        """A supervisor is (back) here; without its pool it hands nothing on. What was under way is lost."""
        self.on_host_away(host)
        if pool == host_pool(host):
            self._hosts[host] = _Host()

    def on_host_away(self, host: HostKey) -> None:
        """Its connection is gone."""
        if self._hosts.pop(host, None) is not None:
            self._tell_readers(host)

    def on_engine_hello(self, engine: EngineId, host: HostKey, *, maps_host: bool) -> None:
        """An engine is (back) here: what was held for it is among what it is sent again."""
        self.on_engine_gone(engine)
        if maps_host:
            self._host_of[engine] = host
            self._readers.setdefault(host, set()).add(engine)

    def on_engine_gone(self, engine: EngineId) -> None:
        self._held.pop(engine, None)
        self._news.pop(engine, None)
        self._forget_reader(engine)

    def on_unreadable(self, engine: EngineId) -> None:
        """It cannot map what its host has: it gets frames from now on."""
        self._forget_reader(engine)
        self._tell(engine)

    def _forget_reader(self, engine: EngineId) -> None:
        host = self._host_of.pop(engine, None)
        if host is not None:
            self._readers[host].discard(engine)
            if not self._readers[host]:
                del self._readers[host]

    # ------------------------------------------------------------ what becomes of blobs

    def on_placed(self, host: HostKey, blob: BlobId, segment: str) -> bool:
        """A blob is in a segment of this host. False if nobody wants it there (any more)."""
        known = self._hosts.get(host)
        if not segment.startswith(f"{host_pool(host)}/"):
            self.on_declined(host, blob)  # nobody lends what is not his
            return False
        if known is None or known.under_way.pop(blob, None) is None or blob not in self._blobs:
            return False
        self._blobs.on_copied(blob, ("host", host), segment)
        self._tell_readers(host)
        return True

    def on_declined(self, host: HostKey, blob: BlobId) -> None:
        """There is no room for a blob at this host."""
        known = self._hosts.get(host)
        if known is None or (size_bytes := known.under_way.pop(blob, None)) is None:
            return
        before = known.declined_bytes
        known.declined_bytes = size_bytes if before is None else min(before, size_bytes)
        self._tell_readers(host)

    def on_freed(self, host: HostKey) -> None:
        """Segments of this host are free: there may be room again."""
        if (known := self._hosts.get(host)) is not None:
            known.declined_bytes = None

    def stop_unwanted(self, outbox: RelayOutbox) -> None:
        """Blobs that are no longer here need not be sent any further."""
        for host, known in self._hosts.items():
            for blob in [blob for blob in known.under_way if blob not in self._blobs]:
                del known.under_way[blob]
                outbox.stop_relaying(host, blob)

    def segment_for(self, engine: EngineId, blob: BlobId) -> str:
        """Where this engine finds a blob on its own host; empty if it does not."""
        host = self._host_of.get(engine)
        return "" if host is None else self._blobs.copy_at(blob, ("host", host))

    # ------------------------------------------------------------ what waits for them

    def take_news(self) -> Iterable[EngineId]:
        """Engines for which something is held that may go now."""
        return list(self._news)

    def pass_through(self, engine: EngineId, runs: list[Run], outbox: RelayOutbox) -> list[Run]:
        """Of what is held for an engine and of what is new for it: what may go now, in order."""
        if engine in self._news:
            del self._news[engine]
            runs = [*self._held.pop(engine, ()), *runs]
        elif engine not in self._host_of:
            return runs
        held = self._held.get(engine, [])
        holds_order = any(_is_in_order(task) for task, _ in held)
        ready: list[Run] = []
        for task, announce in runs:
            if self._waits(engine, task, outbox) or (holds_order and _is_in_order(task)):
                held.append((task, announce))
                holds_order = holds_order or _is_in_order(task)
            else:
                ready.append((task, announce))
        if held:
            self._held[engine] = held
        return ready

    def on_released(self, engine: EngineId, task: Task) -> None:
        """This engine is not to run this task (any more)."""
        held = self._held.get(engine)
        if held is None:
            return
        left = [run for run in held if run[0] is not task]
        if not left:
            del self._held[engine]
            self._news.pop(engine, None)
        elif len(left) < len(held):
            self._held[engine] = left
            self._tell(engine)  # who came behind it need not wait for its sake

    # ------------------------------------------------------------ inside

    def _waits(self, engine: EngineId, task: Task, outbox: RelayOutbox) -> bool:
        """Whether a task needs what is on its way to its engine's host, perhaps from now on."""
        host = self._host_of.get(engine)
        known = self._hosts.get(host) if host is not None else None
        if host is None or known is None:
            return False
        # All of them are asked for: those of one task go together.
        awaited = [self._is_awaited(engine, host, known, blob, outbox) for blob in task.needed_blobs]
        return any(awaited)

    def _is_awaited(
        self, engine: EngineId, host: HostKey, known: _Host, blob: BlobId, outbox: RelayOutbox
    ) -> bool:
        if blob in known.under_way:
            return not self._blobs.knows(engine, blob)
        if self._blobs.knows(engine, blob) or self._blobs.copy_at(blob, ("host", host)):
            return False
        size_bytes = self._blobs.size_bytes((blob,))
        if not self._is_worth_it(host, known, blob, size_bytes) or not outbox.relay(host, blob):
            return False
        known.under_way[blob] = size_bytes
        return True

    def _is_worth_it(self, host: HostKey, known: _Host, blob: BlobId, size_bytes: int) -> bool:
        return (
            size_bytes >= LEAST_BYTES
            and len(self._readers[host]) >= LEAST_ENGINES
            and (known.declined_bytes is None or size_bytes < known.declined_bytes)
            and self._blobs.is_for_many(blob)
        )

    def _tell_readers(self, host: HostKey) -> None:
        for engine in self._readers.get(host, ()):
            self._tell(engine)

    def _tell(self, engine: EngineId) -> None:
        if engine in self._held:
            self._news[engine] = None

    def check(self) -> None:
        assert self._news.keys() <= self._held.keys()
        assert all(self._held.values())
        for engine, host in self._host_of.items():
            assert engine in self._readers[host]
        assert sum(map(len, self._readers.values())) == len(self._host_of)
        for engine, held in self._held.items():
            for task, _ in held:
                assert task.engine == engine, (engine, task)
            if engine in self._news:
                continue
            host = self._host_of[engine]
            assert self._hosts[host].under_way, f"what engine {engine} waits for does not come"


def _is_in_order(task: Task) -> bool:
    return task.direct != NO_ENGINE
