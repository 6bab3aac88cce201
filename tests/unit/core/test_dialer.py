"""Hello, keeping in touch, and hello again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from enginery.core.dialer import GREETING_S, PING_S, REDIAL_S, Dialer, DialState
from enginery.ids import BlobId, EngineId
from enginery.protocol import codec
from enginery.protocol import messages as m

HELLO = m.ControlHello("key", b"secret")  # type: ignore[arg-type]
WELCOME = m.ControlWelcome(EngineId(0))


class Peer:
    """A dialer, and the controller's side of its connection by hand."""

    def __init__(self) -> None:
        self.dialer: Dialer[m.ToControl] = Dialer(codec.to_control(), lambda: HELLO)
        self.number = 0
        self.dialer.greet(now=0.0)

    def hear(
        self, *records: m.Record, now: float = 0.0, number: int | None = None, epoch: int | None = None
    ) -> list[m.Record]:
        """One message for the dialer; returns what its owner is to act on."""
        if number is None:
            number, self.number = self.number, self.number + 1
        header = codec.encode(self.dialer.link.epoch if epoch is None else epoch, number, 0, records)
        return [record for record, _ in self.dialer.on_message(header, (), now=now)]

    def said(self) -> list[str]:
        decode: codec.Decoder[m.FromControl] = codec.from_control()
        words = []
        while (message := self.dialer.next_message()) is not None:
            envelope = decode.decode(*message)
            words += [f"{envelope.epoch}.{envelope.number} {type(r).__name__}" for r in envelope.records]
        return words

    def bind(self) -> None:
        self.said()
        self.hear(WELCOME)


def test_a_hello_is_answered_by_a_welcome() -> None:
    peer = Peer()
    assert peer.said() == ["1.0 ControlHello"]
    assert not peer.dialer.is_bound
    assert peer.hear(WELCOME) == [WELCOME]
    assert peer.dialer.is_bound
    assert repr(peer.dialer) == "<Dialer bound, epoch 1>"


def test_records_reach_the_owner_but_pings_do_not() -> None:
    peer = Peer()
    peer.bind()
    stop = m.StopEngine()
    assert peer.hear(m.Ping(), stop) == [stop]


def test_a_blob_comes_with_its_frame() -> None:
    dialer: Dialer[m.ToEngine] = Dialer(codec.to_engine(), lambda: HELLO)
    dialer.greet(now=0.0)
    piece = m.PutBlob(BlobId(b"b" * 16), 4, 0, False)
    records: Sequence[m.Record] = [m.EngineWelcome("key", EngineId(0), 0, 0), piece, m.Stored(1)]
    taken = dialer.on_message(codec.encode(1, 0, 0, records), [b"data"], now=0.0)
    assert taken == [(records[0], None), (piece, b"data"), (records[2], None)]


def test_asked_for_a_hello_it_begins_a_new_epoch() -> None:
    peer = Peer()
    peer.bind()
    assert peer.hear(m.HelloFirst("unknown"), number=0) == []
    assert not peer.dialer.is_bound
    assert peer.said() == ["2.0 ControlHello"]


def test_a_demand_about_an_older_epoch_is_over() -> None:
    peer = Peer()
    peer.bind()
    peer.hear(m.HelloFirst(), number=0)
    peer.said()
    peer.hear(m.HelloFirst(), number=0, epoch=1)
    assert peer.said() == []


def test_a_gap_begins_a_new_epoch() -> None:
    peer = Peer()
    peer.bind()
    assert peer.hear(m.StopEngine(), number=3) == []
    assert peer.said() == ["2.0 ControlHello"]


def test_what_comes_twice_or_from_an_older_epoch_is_dropped() -> None:
    peer = Peer()
    peer.bind()
    assert peer.hear(m.StopEngine(), number=0) == []
    assert peer.hear(m.StopEngine(), number=1, epoch=0) == []
    assert peer.said() == []


def test_a_torn_message_begins_a_new_epoch() -> None:
    peer = Peer()
    peer.bind()
    assert peer.dialer.on_message(b"\xc1", (), now=0.0) == []
    assert peer.said() == ["2.0 ControlHello"]


def test_a_refusal_is_for_ever() -> None:
    peer = Peer()
    peer.said()
    peer.hear(m.Refused("another Python"), number=0)
    assert peer.dialer.state is DialState.REFUSED
    assert peer.dialer.refusal == "another Python"
    assert peer.dialer.next_deadline() is None
    peer.dialer.greet(now=1.0)
    assert peer.said() == []


def test_an_unanswered_hello_is_said_on_a_new_connection() -> None:
    peer = Peer()
    peer.said()
    assert peer.dialer.next_deadline() == GREETING_S
    peer.dialer.on_tick(now=GREETING_S - 0.1)
    assert not peer.dialer.wants_redial
    peer.dialer.on_tick(now=GREETING_S)
    assert peer.dialer.wants_redial
    peer.dialer.greet(now=GREETING_S)
    assert not peer.dialer.wants_redial
    assert peer.said() == ["2.0 ControlHello"]


def test_silence_is_met_with_pings_and_then_with_a_new_connection() -> None:
    peer = Peer()
    peer.bind()
    history = []
    while not peer.dialer.wants_redial:
        deadline = peer.dialer.next_deadline()
        assert deadline is not None
        peer.dialer.on_tick(now=deadline)
        history += [(deadline, said) for said in peer.said()]
    assert history == [(PING_S, "1.1 Ping"), (2 * PING_S, "1.2 Ping")]
    assert deadline == REDIAL_S


def test_a_probe_is_answered_so_that_losses_show() -> None:
    peer = Peer()
    peer.bind()
    peer.hear(m.Ping(), now=2.0)
    assert peer.said() == ["1.1 Ping"]
    peer.hear(m.Ping(), now=4.0)
    assert peer.said() == ["1.2 Ping"]


def test_an_answer_is_not_answered() -> None:
    peer = Peer()
    peer.bind()
    peer.dialer.on_tick(now=PING_S)
    assert peer.said() == ["1.1 Ping"]
    peer.hear(m.Ping(), now=PING_S + 0.01)
    assert peer.said() == []


@pytest.mark.parametrize("asleep_s", [5.0, 500.0])
def test_silence_while_nobody_listened_proves_nothing(asleep_s: float) -> None:
    peer = Peer()
    peer.bind()
    peer.dialer.on_asleep(now=asleep_s)
    peer.dialer.on_tick(now=asleep_s)
    assert not peer.dialer.wants_redial
    assert peer.said() == ["1.1 Ping"]
