"""Blobs in shared memory at the controller: to whom they are named, and who hears of their end."""

from __future__ import annotations

import pytest

from enginery.core.hub import Hub
from enginery.core.state import LOST, Identity
from enginery.ids import BlobId, ClientId, EngineId, EngineKey, HostKey, TaskId, content_id
from enginery.protocol import messages as m
from tests.unit.core.builders import options, result, task_id
from tests.unit.core.hub_bench import VERSIONS, HubBench

A, B, R = (BlobId(letter * 16) for letter in (b"a", b"b", b"r"))
SIZE = 300_000
K = content_id([b"k" * SIZE])
"""The id of a constant: what it says must be in the segment."""


class Site(HubBench):
    """A client, an engine and its control connection, all of one host; `segments` is what is there."""

    def __init__(self, *, client_shares: bool = True, engine_shares: bool = True) -> None:
        super().__init__()
        self.segments: dict[str, bytes] = {}
        self.hub = Hub(
            cluster="test",
            controller="key",
            versions=VERSIONS,
            now=self.now,
            read_shared=lambda name, size_bytes: self.segments.get(name),
        )
        self.caller = self.greet_client("client-00000001" if client_shares else "")
        self.worker = self.greet_engine("engine-e0" if engine_shares else "")
        self.put(self.caller)
        self.control_of_worker = self.control()
        self.options = options()
        for peer in self.links:
            self.heard(peer)

    def greet_client(
        self, pool: str = "client-00000001", lent: tuple[str, ...] = (), number: int = 1
    ) -> Identity:
        return self.hello(m.ClientHello(ClientId(number), b"s", VERSIONS, 1, 0, pool, list(lent)))

    def greet_engine(self, pool: str = "engine-e0", lent: tuple[str, ...] = (), *held: int) -> Identity:
        known = [(task_id(number), 1) for number in held]
        return self.hello(
            m.EngineHello(
                EngineKey("e0"),
                b"s",
                VERSIONS,
                "host",
                HostKey(""),
                1,
                EngineId(0),
                known,
                0,
                pool,
                list(lent),
            )
        )

    def share(self, peer: Identity, blob: BlobId, segment: str, *, keep: bool = False) -> None:
        self.segments[segment] = (b"k" if blob == K else bytes(blob[:1])) * SIZE
        self.say(peer, m.ShareBlob(blob, SIZE, keep, segment))

    def submit(self, number: int, *blobs: BlobId, engines: tuple[int, ...] = ()) -> None:
        call = m.Call(number, b"p", blobs, tuple(map(EngineId, engines)))
        self.say(self.caller, m.Submit(self.options, [call]))

    def finish(self, number: int, *blobs: BlobId) -> None:
        answer = result(number)
        answer.blobs = blobs
        self.say(self.worker, m.Results(number - 1, [answer]))

    def frames(self, peer: Identity) -> bytes:
        """What travels to this peer as frames, functions apart."""
        self.hub.settle(now=self.now)
        link = self.links[peer]
        return b"".join(bytes(frame) for _, frame, *_ in link._bulk if frame is not None)

    def freed(self, peer: Identity) -> list[str]:
        return [
            name
            for record in self.heard(peer)
            if isinstance(record, m.FreeSegments)
            for name in record.segments
        ]

    def ends(self) -> list[tuple[m.Status, str]]:
        return [
            (result.status, result.detail)
            for record in self.heard(self.caller)
            if isinstance(record, m.Finished)
            for result in record.results
        ]


# ---------------------------------------------------------------- to whom


def test_an_argument_is_named_to_the_engine_and_freed_when_it_is_not_kept_any_more() -> None:
    site = Site()
    site.share(site.caller, A, "client-00000001/1.0")
    site.submit(1, A)
    named, run = site.heard(site.worker)[-2:]
    assert named == m.ShareBlob(A, SIZE, False, "client-00000001/1.0")
    assert isinstance(run, m.Run)
    site.finish(1)
    assert site.freed(site.caller) == [], "the call may be asked for"
    site.hub.state.ended_blobs.clear()
    assert site.freed(site.caller) == ["client-00000001/1.0"]


def test_who_shares_nothing_gets_the_bytes() -> None:
    site = Site(engine_shares=False)
    site.share(site.caller, A, "client-00000001/1.0")
    site.submit(1, A)
    assert site.frames(site.worker) == b"a" * SIZE


def test_a_result_in_shared_memory_reaches_a_client_that_shares_nothing() -> None:
    site = Site(client_shares=False)
    site.submit(1)
    site.heard(site.worker)
    site.share(site.worker, R, "engine-e0/1.0")
    site.finish(1, R)
    assert site.frames(site.caller) == b"r" * SIZE
    assert site.ends() == [(m.Status.OK, "")]


def test_where_the_controller_shares_nothing_nobody_does() -> None:
    site = Site()
    site.hub.state._read_shared = None
    caller = site.greet_client()
    site.say(caller, m.ShareBlob(A, SIZE, False, "client-00000001/1.0"))
    site.submit(1, A)
    assert site.heard(caller)[-1] == m.Resend([1], [A])


def test_nobody_shares_what_is_not_his() -> None:
    site = Site()
    site.share(site.caller, A, "engine-e0/1.0")
    site.share(site.worker, B, "client-00000001/1.0")
    assert site.hub.state.blobs.missing([A, B]) == [A, B]


# ---------------------------------------------------------------- who cannot read


def missing(number: int, *blobs: BlobId, attempt: int = 1) -> m.BlobsMissing:
    return m.BlobsMissing(task_id(number), attempt, list(blobs), unreadable=True)


def test_an_engine_that_cannot_map_gets_frames_from_then_on() -> None:
    site = Site()
    site.share(site.caller, A, "client-00000001/1.0")
    site.share(site.caller, B, "client-00000001/2.0")
    site.submit(1, A)
    site.heard(site.worker)
    site.say(site.worker, missing(1, A))
    assert site.frames(site.worker) == b"a" * SIZE
    site.heard(site.worker)
    site.submit(2, B)
    site.hub.settle(now=site.now)
    site.finish(1)
    assert site.frames(site.worker) == b"b" * SIZE


@pytest.mark.parametrize("attempt", [1, 2])
def test_what_was_used_again_before_an_engine_has_looked_says_nothing_of_it(attempt: int) -> None:
    """It was busy; its task has been aborted, or runs elsewhere, and the segment is another one by now."""
    site = Site()
    site.share(site.caller, A, "client-00000001/1.0")
    site.share(site.caller, B, "client-00000001/2.0")
    site.submit(1, A)
    site.heard(site.worker)
    if attempt == 1:
        site.say(site.caller, m.Abort([task_id(1)]))
        site.say(site.control_of_worker, m.TakenBack([(task_id(1), 1)], []))
    site.say(site.worker, missing(1, A, attempt=attempt))
    site.submit(2, B)
    if attempt == 2:
        site.finish(1)
    named = [record for record in site.heard(site.worker) if isinstance(record, m.ShareBlob)]
    assert named == [m.ShareBlob(B, SIZE, False, "client-00000001/2.0")]


# ---------------------------------------------------------------- what is lost


def test_a_task_whose_argument_was_removed_by_somebody_fails_and_nothing_else() -> None:
    site = Site()
    site.share(site.caller, A, "client-00000001/1.0")
    site.submit(1, A)
    site.heard(site.worker)
    site.segments.clear()
    site.say(site.worker, missing(1, A))
    assert site.frames(site.worker) == b""
    site.heard(site.worker)
    site.say(site.worker, missing(1, A))
    assert site.heard(site.control_of_worker) == [m.TakeBack([(task_id(1), 1)])], "what came behind it waits"
    assert site.ends() == [(m.Status.REFUSED, LOST)]
    site.submit(2)
    site.heard(site.worker)
    site.finish(2)
    assert site.ends() == [(m.Status.OK, "")]


def test_a_result_that_was_removed_by_somebody_is_no_longer_kept() -> None:
    site = Site(client_shares=False)
    site.submit(1)
    site.heard(site.worker)
    site.share(site.worker, R, "engine-e0/1.0")
    site.segments.clear()
    site.finish(1, R)
    assert site.ends() == [
        (m.Status.DROPPED, "it ended with OK; its large buffers are no longer kept"),
    ]
    site.say(site.caller, m.Received(1))
    assert site.freed(site.worker) == ["engine-e0/1.0"]


def test_who_asks_for_a_result_that_was_removed_is_told_so() -> None:
    site = Site()
    other = site.greet_client("", number=2)
    site.submit(1)
    site.heard(site.worker)
    site.share(site.worker, R, "engine-e0/1.0")
    site.finish(1, R)
    site.commit()
    site.heard(other)
    site.segments.clear()
    site.say(other, m.AskResults(1, [task_id(1)]))
    site.commit()
    (answer,) = site.heard(other)
    assert isinstance(answer, m.ResultsAnswer)
    assert [(found.status, found.blobs) for found in answer.results] == [(m.Status.DROPPED, ())]


def test_who_asks_for_a_call_whose_argument_was_removed_is_told_that_it_is_gone() -> None:
    site = Site()
    other = site.greet_client("", number=2)
    site.share(site.caller, A, "client-00000001/1.0")
    site.submit(1, A)
    site.submit(2)
    site.heard(site.worker)
    site.finish(1)
    site.commit()
    site.segments.clear()
    site.heard(other)
    site.say(other, m.AskCalls(1, [task_id(1), task_id(2)]))
    site.commit()
    answer = site.heard(other)[-1]
    assert isinstance(answer, m.CallsAnswer)
    assert answer.missing == [task_id(1)]
    assert [call.task for call in answer.calls] == [TaskId(task_id(2))]


def test_a_constant_that_is_lost_is_asked_for_again() -> None:
    site = Site(engine_shares=False)
    site.share(site.caller, K, "client-00000001/1.0", keep=True)
    site.segments.clear()
    site.submit(1, K)
    site.hub.settle(now=site.now)
    site.heard(site.caller)
    site.submit(2, K)
    assert site.heard(site.caller) == [m.Resend([2], [K])]
    site.share(site.caller, K, "client-00000001/2.0", keep=True)
    site.say(site.worker, missing(1, K))
    assert site.frames(site.worker) == b"k" * SIZE


def test_a_constant_that_cannot_be_read_is_not_remembered() -> None:
    site = Site()
    site.say(site.caller, m.ShareBlob(K, SIZE, True, "client-00000001/1.0"))
    assert site.hub.state.blobs.missing([K]) == [K]
    assert site.freed(site.caller) == ["client-00000001/1.0"]


def test_a_constant_must_be_what_its_id_says() -> None:
    site = Site()
    site.segments["client-00000001/1.0"] = b"x" * SIZE
    site.say(site.caller, m.ShareBlob(K, SIZE, True, "client-00000001/1.0"))
    assert site.hub.state.blobs.missing([K]) == [K]
    assert site.freed(site.caller) == ["client-00000001/1.0"]


# ---------------------------------------------------------------- hello again


def test_after_a_hello_a_peer_hears_what_nobody_needs_of_what_it_has_lent() -> None:
    site = Site()
    site.share(site.caller, A, "client-00000001/1.0")
    site.submit(1, A)
    site.lose(site.caller)
    caller = site.greet_client(lent=("client-00000001/1.0", "client-00000001/2.0"))
    assert site.freed(caller) == ["client-00000001/2.0"]


def test_a_peer_that_shares_no_longer_hears_of_what_it_has_lent_all_the_same() -> None:
    site = Site()
    site.share(site.caller, A, "client-00000001/1.0")
    site.submit(1, A)
    site.lose(site.caller)
    caller = site.greet_client("", lent=("client-00000001/1.0", "client-00000001/2.0"))
    assert site.freed(caller) == ["client-00000001/2.0"]
    site.hub.settle(now=site.now)
    site.finish(1)
    site.hub.state.ended_blobs.clear()
    assert site.freed(caller) == ["client-00000001/1.0"]


def test_what_no_call_has_named_before_a_hello_is_its_own_again() -> None:
    """It says it again, or has other plans for it: then its segment must not be named to anybody."""
    site = Site()
    site.share(site.caller, A, "client-00000001/1.0")
    site.put(site.caller, B, b"part", keep=False)
    caller = site.greet_client()
    assert site.freed(caller) == []
    assert site.hub.state.blobs.missing([A, B]) == [A, B]
    site.share(caller, A, "client-00000001/1.0")
    site.caller = caller
    site.submit(1, A)
    assert m.ShareBlob(A, SIZE, False, "client-00000001/1.0") in site.heard(site.worker)


def test_constants_outlive_a_hello() -> None:
    site = Site()
    site.share(site.caller, K, "client-00000001/1.0", keep=True)
    caller = site.greet_client(lent=("client-00000001/1.0",))
    assert site.freed(caller) == []
    assert site.hub.state.blobs.missing([K]) == []


def test_an_engine_that_comes_back_says_its_result_again() -> None:
    site = Site()
    site.submit(1)
    site.heard(site.worker)
    site.share(site.worker, R, "engine-e0/1.0")
    site.lose(site.worker)
    site.worker = site.greet_engine("engine-e0", (), 1)
    assert site.freed(site.worker) == []
    site.share(site.worker, R, "engine-e0/1.0")
    site.finish(1, R)
    named = [record for record in site.heard(site.caller) if isinstance(record, m.ShareBlob)]
    assert named == [m.ShareBlob(R, SIZE, False, "engine-e0/1.0")]


# ---------------------------------------------------------------- ends


def test_what_is_needed_of_a_dead_writer_is_spared() -> None:
    site = Site()
    site.share(site.caller, A, "client-00000001/1.0")
    site.share(site.caller, B, "client-00000001/2.0")
    site.submit(1, A)
    site.lose(site.caller)
    assert site.hub.take_abandoned_pools(now=site.now) == [
        ("client-00000001", {"client-00000001/1.0", "client-00000001/2.0"})
    ]
    site.hub.state.forget_client(ClientId(1))
    site.now += 2.0
    assert site.hub.take_abandoned_pools(now=site.now) == [("client-00000001", {"client-00000001/1.0"})]
    site.hub.settle(now=site.now)
    site.finish(1)
    site.hub.state.ended_blobs.clear()
    site.now += 2.0
    assert site.hub.take_abandoned_pools(now=site.now) == [("client-00000001", set())]
    site.hub.on_pool_cleared("client-00000001")
    assert site.hub.take_abandoned_pools(now=site.now + 2.0) == []


def test_results_outlive_their_engine() -> None:
    site = Site()
    other = site.greet_client("client-00000002", number=2)
    site.submit(1)
    site.heard(site.worker)
    site.share(site.worker, R, "engine-e0/1.0")
    site.finish(1, R)
    site.commit()
    site.say(site.worker, m.Goodbye())
    assert site.hub.take_abandoned_pools(now=site.now) == [("engine-e0", {"engine-e0/1.0"})]
    named = m.ShareBlob(R, SIZE, False, "engine-e0/1.0")
    assert named in site.heard(site.caller)
    site.say(site.caller, m.Received(1))
    site.heard(other)
    site.say(other, m.AskResults(1, [task_id(1)]))
    site.commit()
    assert named in site.heard(other)
