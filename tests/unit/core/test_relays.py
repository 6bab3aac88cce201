"""Blobs that go to a host once: when, what waits for them, and what becomes of their segments."""

from __future__ import annotations

import itertools

import pytest

from enginery.core import relays
from enginery.core.state import Identity
from enginery.ids import BlobId, EngineId, EngineKey, HostKey, content_id, host_pool
from enginery.protocol import messages as m
from enginery.protocol.link import cut_blob
from tests.unit.core.builders import options, result, task_id
from tests.unit.core.hub_bench import VERSIONS, HubBench

SIZE = relays.LEAST_BYTES + 7
A, B = (BlobId(letter * 16) for letter in (b"a", b"b"))
K = content_id([b"k" * SIZE])


def data_of(blob: BlobId, size: int) -> bytes:
    return (b"k" if blob == K else bytes(blob[:1])) * size


class Site(HubBench):
    """A client, and engines of another host with their supervisor; nobody shares memory with the other."""

    def __init__(self, engines: int = 3) -> None:
        super().__init__()
        self.numbers = itertools.count(1)
        self.supervisor = self.greet_host()
        self.workers = [self.greet_engine(number) for number in range(engines)]
        self.caller = self.client()
        self.options = options(BlobId(b""))
        for peer in self.links:
            self.heard(peer)

    def greet_host(self, *lent: str, key: str = "h0", pool: str | None = None) -> Identity:
        pool = host_pool(HostKey(key)) if pool is None else pool
        return self.hello(m.HostHello(HostKey(key), b"s", "there", 1, [], pool, list(lent)))

    def greet_engine(
        self, number: int, *held: int, host: str = "h0", maps_host: bool = True, results: int = 0
    ) -> Identity:
        return self.hello(
            m.EngineHello(
                EngineKey(f"e{number}"), b"s", VERSIONS, "there", HostKey(host), 1, EngineId(number),
                [(task_id(one), 1) for one in held], results, maps_host=maps_host,
            )  # type: ignore[arg-type]
        )  # fmt: skip

    def send(self, blob: BlobId, *, size: int = SIZE, keep: bool = False) -> None:
        self.put(self.caller, blob, data_of(blob, size), keep=keep)

    def submit(self, *blobs: BlobId, engines: tuple[int, ...] = ()) -> int:
        """A call to engines, or a balanced one; returns its first number."""
        number = next(self.numbers)
        for _ in engines[1:]:
            next(self.numbers)
        call = m.Call(number, b"p", blobs, tuple(map(EngineId, engines)))
        self.say(self.caller, m.Submit(self.options, [call]))
        self.hub.settle(now=self.now)
        return number

    def push(self, blob: BlobId, *, engines: tuple[int, ...] = (0, 1, 2), size: int = SIZE) -> int:
        self.send(blob, size=size)
        return self.submit(blob, engines=engines)

    def place(self, blob: BlobId, segment: str = "host-h0/0.0", size: int = SIZE) -> None:
        self.say(self.supervisor, m.ShareBlob(blob, size, False, segment))

    def finish(self, engine: int, number: int, order: int = 0) -> None:
        self.say(self.workers[engine], m.Results(order, [result(number, completed=1.0001)]))

    def bytes_to(self, peer: Identity) -> bytes:
        """What travels to this peer as frames; all is taken from its link."""
        self.hub.settle(now=self.now)
        self.hub.check()
        link = self.links[peer]
        found = b"".join(bytes(frame) for _, frame, *_ in (*link._small, *link._bulk) if frame is not None)
        link.restart(0)
        return found

    def told(self, engine: int) -> list[object]:
        """What an engine hears: names of segments, pieces, and tasks by their numbers."""
        said: list[object] = []
        for record in self.heard(self.workers[engine]):
            if isinstance(record, m.ShareBlob):
                said.append(record.segment)
            elif isinstance(record, m.Run):
                said += [call.task - task_id(0) for call in record.calls]
            elif isinstance(record, m.PutBlob) and record.size_bytes >= SIZE and record.offset == 0:
                said.append("frames")
        return said

    def all_told(self) -> list[list[object]]:
        return [self.told(engine) for engine in range(len(self.workers))]

    def freed(self) -> list[str]:
        return [
            segment
            for record in self.heard(self.supervisor)
            if isinstance(record, m.FreeSegments)
            for segment in record.segments
        ]


# ---------------------------------------------------------------- once


def test_what_several_engines_need_goes_to_their_host_once() -> None:
    site = Site()
    site.push(A)
    assert site.bytes_to(site.supervisor) == b"a" * SIZE
    assert site.all_told() == [[], [], []], "they are to be told where it is"
    site.place(A)
    named = m.ShareBlob(A, SIZE, False, "host-h0/0.0")
    for number, worker in enumerate(site.workers, 1):
        options = m.RunOptions(m.Kind.CALL, site.options.function, "f", True)
        assert site.heard(worker) == [named, m.Run(options, [m.EngineCall(task_id(number), 1, b"p", (A,))])]
    assert site.bytes_to(site.supervisor) == b""


def test_an_engine_that_comes_to_it_later_is_told_its_name() -> None:
    """A constant, for one; also an engine that has joined since."""
    site = Site(2)
    site.send(K, keep=True)
    site.submit(K)
    assert site.bytes_to(site.supervisor) == b"k" * SIZE
    site.place(K)
    assert site.told(0) == ["host-h0/0.0", 1]
    site.workers.append(site.greet_engine(2))
    site.submit(K, engines=(1, 2))
    assert [site.told(1), site.told(2)] == [["host-h0/0.0", 2], ["host-h0/0.0", 3]]
    assert site.bytes_to(site.supervisor) == b""


@pytest.mark.parametrize(
    "case", ["small", "for one", "one engine", "no pool", "no supervisor", "does not map", "another's pool"]
)
def test_what_is_not_worth_it_goes_as_frames(case: str) -> None:
    site = Site(1 if case == "one engine" else 3)
    size = relays.LEAST_BYTES - 1 if case == "small" else SIZE
    if case in ("no pool", "another's pool"):
        site.supervisor = site.greet_host(pool="" if case == "no pool" else host_pool(HostKey("h1")))
    if case == "no supervisor":
        site.lose(site.supervisor)
    if case == "does not map":
        site.workers = [site.greet_engine(number, maps_host=False) for number in range(3)]
    for worker in site.workers:
        site.heard(worker)
    if case == "one engine":
        site.send(K, keep=True)
        site.submit(K)
        assert site.bytes_to(site.workers[0]).endswith(b"k" * SIZE)
        return
    site.push(A, engines=(0,) if case == "for one" else (0, 1, 2), size=size)
    assert site.bytes_to(site.workers[0]).endswith(b"a" * size)


def test_each_host_is_sent_it_and_engines_elsewhere_get_frames() -> None:
    site = Site(2)
    other = site.greet_host(key="h1")
    site.workers += [site.greet_engine(2, host="h1"), site.greet_engine(3, host="h1")]
    site.workers.append(site.greet_engine(4, host="", maps_host=False))
    for worker in site.workers:
        site.heard(worker)
    site.push(A, engines=(0, 1, 2, 3, 4))
    assert site.bytes_to(site.supervisor) == site.bytes_to(other) == b"a" * SIZE
    assert site.told(4) == ["frames", 5]
    site.say(other, m.ShareBlob(A, SIZE, False, "host-h1/7.0"))
    assert site.all_told() == [[], [], ["host-h1/7.0", 3], ["host-h1/7.0", 4], []]
    site.place(A)
    assert site.all_told()[:2] == [["host-h0/0.0", 1], ["host-h0/0.0", 2]]


# ---------------------------------------------------------------- order


def test_calls_to_an_engine_keep_their_order_and_other_tasks_pass() -> None:
    site = Site(2)
    for engine in (0, 1):  # it is known that they do not take long: more are sent ahead
        known = site.submit(engines=(engine,))
        site.finish(engine, known)
    site.all_told()
    push = site.push(A, engines=(0, 1))
    direct = site.submit(engines=(0,))
    balanced = [site.submit(), site.submit()]
    assert sorted(itertools.chain(*site.all_told())) == balanced  # type: ignore[type-var]
    site.place(A)
    assert site.told(0) == ["host-h0/0.0", push, direct]
    assert site.told(1) == ["host-h0/0.0", push + 1]


def test_two_blobs_of_one_call_go_together() -> None:
    site = Site()
    site.send(A)
    site.send(B)
    site.submit(A, B, engines=(0, 1))
    assert site.bytes_to(site.supervisor) == b"a" * SIZE + b"b" * SIZE
    site.place(A)
    assert site.told(0) == [], "it needs both"
    site.place(B, "host-h0/1.0")
    assert site.told(0) == ["host-h0/0.0", "host-h0/1.0", 1]


def test_a_task_that_is_taken_back_meanwhile_holds_nobody_up() -> None:
    site = Site()
    control = site.control("e0")
    push = site.push(A, engines=(0, 1))
    site.heard(site.supervisor)
    site.say(site.caller, m.Abort([task_id(push)]))
    assert m.TakeBack([(task_id(push), 1)]) in site.heard(control)
    site.say(control, m.TakenBack([(task_id(push), 1)], []))
    follower = site.submit(engines=(0,))
    assert site.told(0) == [follower]
    site.place(A)
    assert site.all_told() == [[], ["host-h0/0.0", push + 1], []]


def test_what_nobody_needs_any_more_is_not_sent_to_the_end() -> None:
    site = Site()
    push = site.push(A, engines=(0, 1))
    site.hub.settle(now=site.now)
    for engine in (0, 1):
        control = site.control(f"e{engine}")
        site.say(site.caller, m.Abort([task_id(push + engine)]))
        site.heard(control)
        site.say(control, m.TakenBack([(task_id(push + engine), 1)], []))
    site.hub.state.ended_blobs.clear()
    assert site.heard(site.supervisor) == [m.DropBlobs([A])]
    site.place(A)
    assert site.freed() == ["host-h0/0.0"], "it was faster"


# ---------------------------------------------------------------- who cannot


def test_a_host_without_room_declines_and_frames_go() -> None:
    site = Site()
    site.push(A)
    assert site.bytes_to(site.supervisor)
    site.say(site.supervisor, m.BlobDeclined(A))
    assert site.all_told() == [["frames", 1], ["frames", 2], ["frames", 3]]
    for engine in range(3):
        site.finish(engine, engine + 1)
    site.push(B)
    assert site.all_told() == [["frames", 4], ["frames", 5], ["frames", 6]], "it is not tried again"


def test_a_host_that_gets_segments_back_is_asked_again() -> None:
    site = Site()
    site.push(A)
    site.place(A)
    for engine in range(3):
        site.finish(engine, engine + 1)
    site.push(B)
    site.say(site.supervisor, m.BlobDeclined(B))
    for engine in range(3):
        site.finish(engine, engine + 4, 1)
    site.heard(site.supervisor)
    site.hub.state.ended_blobs.clear()
    assert site.freed() == ["host-h0/0.0"]
    site.push(B)
    assert site.bytes_to(site.supervisor) == b"b" * SIZE


def test_what_is_declined_is_no_longer_sent() -> None:
    site = Site()
    site.push(A, size=5 * SIZE)
    site.hub.settle(now=site.now)
    site.say(site.supervisor, m.BlobDeclined(A))
    assert site.bytes_to(site.supervisor) == b""


def test_an_engine_that_cannot_map_gets_frames_from_then_on() -> None:
    site = Site()
    site.push(A)
    site.place(A)
    site.all_told()
    site.heard(site.supervisor)
    site.say(site.workers[1], m.BlobsMissing(task_id(2), 1, [A], unreadable=True))
    assert site.all_told() == [[], ["frames", 2], []]
    for engine in range(3):
        site.finish(engine, engine + 1)
    site.push(B)
    assert site.all_told() == [[], ["frames", 5], []]
    assert site.bytes_to(site.supervisor) == b"b" * SIZE


# ---------------------------------------------------------------- who goes


def test_a_supervisor_that_is_gone_holds_nobody_up() -> None:
    site = Site()
    site.push(A)
    site.hub.settle(now=site.now)
    site.lose(site.supervisor)
    assert site.all_told() == [["frames", 1], ["frames", 2], ["frames", 3]]


def test_a_supervisor_that_comes_back_is_sent_it_again() -> None:
    site = Site()
    site.push(A)
    site.hub.settle(now=site.now)
    site.supervisor = site.greet_host("host-h0/0.0")
    said = site.heard(site.supervisor)
    assert m.FreeSegments(["host-h0/0.0"]) in said, "whose name did not arrive"
    assert [record for record in said if isinstance(record, m.PutBlob)] == [
        piece for piece, _ in cut_blob(A, b"a" * SIZE, keep=False)
    ]
    site.place(A, "host-h0/1.0")
    assert site.told(2) == ["host-h0/1.0", 3]


def test_what_a_supervisor_has_is_used_after_its_hello_too() -> None:
    site = Site(2)
    site.send(K, keep=True)
    site.submit(K)
    site.place(K)
    site.all_told()
    site.supervisor = site.greet_host("host-h0/0.0", "host-h0/1.0")
    assert site.freed() == ["host-h0/1.0"]
    site.submit(K, engines=(1,))
    assert site.told(1) == ["host-h0/0.0", 2]


def test_segments_go_back_with_the_last_task() -> None:
    site = Site()
    site.push(A)
    site.place(A)
    site.all_told()
    for engine in range(3):
        assert site.freed() == []
        site.finish(engine, engine + 1)
    site.hub.state.ended_blobs.clear()
    assert site.freed() == ["host-h0/0.0"]


def test_a_host_that_has_left_takes_its_segments_along() -> None:
    site = Site(2)
    site.send(K, keep=True)
    site.submit(K)
    site.place(K)
    site.all_told()
    site.say(site.supervisor, m.Goodbye())
    site.submit(K, engines=(1,))
    assert site.told(1) == ["frames", 2]


def test_an_engine_that_says_hello_again_is_sent_what_it_does_not_hold() -> None:
    site = Site()
    push = site.push(A)
    site.hub.settle(now=site.now)
    site.workers[0] = site.greet_engine(0)
    assert site.told(0) == []
    site.place(A)
    assert site.told(0) == ["host-h0/0.0", push]


def test_an_engine_that_dies_is_waited_for_by_nothing() -> None:
    site = Site()
    push = site.push(A)
    site.hub.settle(now=site.now)
    site.say(site.supervisor, m.EngineExited(EngineKey("e0"), 1, "killed", [], True, False))
    site.place(A)
    assert [site.told(1), site.told(2)] == [["host-h0/0.0", push + 1], ["host-h0/0.0", push + 2]]


def test_a_segment_that_is_not_in_its_pool_is_not_named_to_anybody() -> None:
    site = Site()
    site.push(A)
    site.place(A, "client-00000001/0.0")
    assert site.all_told() == [["frames", 1], ["frames", 2], ["frames", 3]]
