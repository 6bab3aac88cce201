"""Clients that do not keep to what they were told they may send."""

from __future__ import annotations

import pytest

from enginery.core import credit as credit_module
from enginery.core import hub as hub_module
from enginery.core.credit import Credit
from enginery.core.state import Identity
from enginery.ids import BlobId, EngineId
from enginery.protocol import messages as m
from enginery.protocol.link import Link
from tests.unit.core.builders import options, result
from tests.unit.core.hub_bench import HubBench

OPTIONS = options()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credit_module, "TASK_WINDOW", 10)
    monkeypatch.setattr(credit_module, "BYTE_WINDOW", 1000)
    monkeypatch.setattr(credit_module, "CALL_LIMIT_BYTES", 500)
    monkeypatch.setattr(hub_module, "UNNAMED_BYTES", 2500)


# ---------------------------------------------------------------- counting


def test_tasks_and_bytes_are_counted_until_they_end() -> None:
    credit = Credit()
    assert credit.has_room(20, awaited=0, size_bytes=2500)
    assert not credit.has_room(21, awaited=0, size_bytes=0)
    assert not credit.has_room(1, awaited=0, size_bytes=2501)
    credit.on_accepted(range(1, 9), 804)
    assert (len(credit), credit.size_bytes) == (8, 800), "each task has its share"
    assert credit.has_room(12, awaited=0, size_bytes=1700)
    assert not credit.has_room(12, awaited=1, size_bytes=0)
    assert not credit.has_room(1, awaited=0, size_bytes=1701)
    credit.on_ended(3)
    credit.on_ended(3)
    assert (len(credit), credit.size_bytes) == (7, 700)
    credit.check()


# ---------------------------------------------------------------- at the hub


def calls(*numbers: int, payload: bytes = b"", engines: tuple[int, ...] = ()) -> m.Submit:
    return m.Submit(OPTIONS, [m.Call(n, payload, (), tuple(map(EngineId, engines))) for n in numbers])


class Site(HubBench):
    def __init__(self) -> None:
        super().__init__()
        self.peer = self.client(1)
        self.put(self.peer)

    def refusal(self) -> str:
        """Why the client is refused; empty if it is not."""
        self.hub.settle(now=self.now)
        self.hub.check()
        refusal = self.hub.take_refusal(self.peer)
        assert not (refusal and self.hub.knows(self.peer))
        return refusal


def test_a_client_that_keeps_to_its_windows_is_never_refused() -> None:
    """It sends below the window, one call whatever its size, and what is to come again."""
    site = Site()
    engine = site.engine()
    site.say(site.peer, calls(*range(1, 10), payload=bytes(100)), calls(10, payload=bytes(1500)))
    assert site.refusal() == ""
    for number in range(1, 11):
        site.heard(engine)
        site.say(engine, m.Results(number - 1, [result(number)]))
    site.say(site.peer, calls(*range(11, 20)), calls(20, engines=(0,) * 10))
    assert site.refusal() == ""


def test_tasks_beyond_the_window_are_the_end_of_their_client() -> None:
    site = Site()
    site.say(site.peer, calls(*range(1, 22)))
    assert site.refusal() == (
        "it has 20 unfinished tasks with 0 MiB, and goes on to send: "
        "more than 2 times the 10 tasks and 0 MiB that it was told"
    )
    assert site.refusal() == ""
    assert len(list(site.hub.state.scheduler)) == 20, "these go on"


def test_one_call_is_no_way_around_it() -> None:
    site = Site()
    site.say(site.peer, calls(1, engines=tuple(range(21))))
    assert site.refusal() != ""
    assert not any(site.hub.state.scheduler)


def test_bytes_beyond_the_window_are_the_end_of_their_client() -> None:
    site = Site()
    for number in range(1, 4):
        site.put(site.peer, BlobId(bytes([number] * 16)), bytes(700), keep=False)
        site.say(site.peer, m.Submit(OPTIONS, [m.Call(number, b"", (BlobId(bytes([number] * 16)),))]))
        assert site.refusal() == ""
    site.say(site.peer, calls(4, payload=bytes(401)))
    assert site.refusal() != ""


def test_calls_whose_blobs_are_not_there_count_too() -> None:
    site = Site()
    absent = BlobId(b"?" * 16)
    site.say(site.peer, m.Submit(OPTIONS, [m.Call(number, b"", (absent,)) for number in range(1, 21)]))
    assert site.refusal() == ""
    site.say(site.peer, m.Submit(OPTIONS, [m.Call(21, b"", (absent,))]))
    assert site.refusal() != ""
    assert not site.hub.state.asked_again


def test_buffers_that_no_call_names_are_the_end_of_their_client() -> None:
    site = Site()
    for number in range(2):
        site.put(site.peer, BlobId(bytes([number] * 16)), bytes(1200), keep=False)
    assert site.refusal() == ""
    site.put(site.peer, BlobId(b"x" * 16), bytes(100), keep=False)
    assert site.refusal() == "it has sent 0 MiB of buffers without the calls that need them"
    assert site.hub.state.blobs.total_bytes < 1000, "they went with it"


def test_calls_to_more_engines_than_can_be_are_no_calls() -> None:
    from enginery.protocol import codec

    record = m.Submit(OPTIONS, [m.Call(1, b"", (), (EngineId(0),) * (m.ENGINES_PER_CALL + 1))])
    with pytest.raises(codec.NotAllowed, match="length <= 10000"):
        codec.from_client().decode(codec.encode(1, 0, 0, [record]))


# ---------------------------------------------------------------- who asks and does not listen


def flood(site: Site, peer: Identity) -> Link:
    link = site.links[peer]
    link._header_sent = 100 << 20
    site.hub.state.say(*peer, m.Ping())
    site.hub.settle(now=site.now)
    return link


def test_who_asks_for_more_than_he_takes_has_to_say_hello_again() -> None:
    site = Site()
    site.say(site.peer, calls(1))
    flood(site, site.peer)
    assert not site.hub.knows(site.peer)
    assert site.hub.take_refusal(site.peer) == "", "nothing is held against him"
    site.client(1)
    (welcome, *_) = site.heard(site.peer)
    assert isinstance(welcome, m.ClientWelcome)
    assert (welcome.accepted, welcome.arrived) == ([(0, 0)], [(1, 1)])


def test_an_engine_that_listens_to_nobody_may_be_in_a_long_call() -> None:
    """What it is given has bounds of its own."""
    site = Site()
    engine = site.engine()
    flood(site, engine)
    assert site.hub.knows(engine)
