"""Two lanes out, numbers in: what a `Link` sends when, and what it lets in."""

from __future__ import annotations

import msgspec
import pytest

from enginery.ids import BlobId, TaskId
from enginery.protocol import codec
from enginery.protocol import messages as m
from enginery.protocol.link import HEADER_BYTES, Link, Verdict, cut_blob

BLOB = BlobId(b"b" * 16)
DECODER = codec.to_engine()


def decoded(link: Link) -> tuple[m.Envelope[m.ToEngine], list[codec.Buffer]]:
    message = link.next_message()
    assert message is not None
    return DECODER.decode(*message), message[1]


def names(envelope: m.Envelope[m.ToEngine]) -> list[str]:
    return [type(record).__name__ for record in envelope.records]


def test_a_quiet_link_has_nothing_to_say() -> None:
    link = Link()
    assert not link.has_output
    assert link.is_drained
    assert link.next_message() is None


def test_what_waits_travels_together_and_in_order() -> None:
    link = Link(epoch=3)
    link.put(m.Stored(1))
    link.put(m.Stored(2))
    envelope, frames = decoded(link)
    assert (envelope.epoch, envelope.number) == (3, 0)
    assert envelope.records == [m.Stored(1), m.Stored(2)]
    assert frames == []
    link.put(m.Ping())
    assert decoded(link)[0].number == 1


def test_a_record_overtakes_bulk_but_not_one_that_must_follow_it() -> None:
    link = Link()
    assert link.put_blob(cut_blob(BLOB, bytes(3 << 20), keep=False))
    link.put_after_bulk(m.DropBlobs([BLOB]))
    link.put(m.Stored(7))
    messages = []
    while link.has_output:
        messages.append(names(decoded(link)[0]))
    assert messages == [["Stored", "PutBlob"], ["PutBlob"], ["PutBlob"], ["DropBlobs"]]


def test_a_small_blob_takes_the_small_lane() -> None:
    link = Link()
    assert not link.put_blob(cut_blob(BLOB, b"function", keep=True))
    link.put_after_bulk(m.Stored(1))
    envelope, frames = decoded(link)
    assert names(envelope) == ["PutBlob", "Stored"]
    assert [bytes(frame) for frame in frames] == [b"function"]


def test_an_empty_blob_is_one_piece() -> None:
    assert [(piece.size_bytes, len(frame)) for piece, frame in cut_blob(BLOB, b"", keep=False)] == [(0, 0)]


def test_pieces_are_cut_at_the_frame_limit_and_nothing_is_copied() -> None:
    data = bytearray(2 * m.FRAME_LIMIT + 5)
    pieces = cut_blob(BLOB, data, keep=False)
    assert [len(frame) for _, frame in pieces] == [m.FRAME_LIMIT, m.FRAME_LIMIT, 5]
    assert [piece.offset for piece, _ in pieces] == [0, m.FRAME_LIMIT, 2 * m.FRAME_LIMIT]
    data[-1] = 9
    assert pieces[-1][1][4] == 9


def test_bulk_waits_for_the_window_and_goes_on_with_the_acknowledgement() -> None:
    sender, receiver = Link(window_bytes=2 << 20), Link(window_bytes=2 << 20)
    sender.put_blob(cut_blob(BLOB, bytes(8 << 20), keep=False))
    under_way = 0
    largest = 0
    while not sender.is_drained:
        while (message := sender.next_message()) is not None:
            under_way += sum(map(len, message[1]))
            largest = max(largest, under_way)
            assert receiver.on_message(DECODER.decode(*message), message[1]) is Verdict.FRESH
        answer = receiver.next_message()
        assert answer is not None, "the window is full and the receiver does not say what it has"
        envelope = DECODER.decode(answer[0])
        under_way = 0
        assert sender.on_message(envelope, ()) is Verdict.FRESH
        assert envelope.records == []
    assert largest <= 3 << 20


def test_a_record_in_the_bulk_lane_needs_no_window() -> None:
    link = Link(window_bytes=1 << 20)
    link.put_blob(cut_blob(BLOB, bytes(2 << 20), keep=False))
    link.put_after_bulk(m.Stored(1))
    link.next_message()
    assert not link.has_output
    assert not link.is_drained


def test_no_header_is_larger_than_a_frame_may_be() -> None:
    link = Link()
    options = m.RunOptions(m.Kind.CALL, BLOB, "f", False)
    for number in range(400):
        calls = [m.EngineCall(TaskId(number), 1, bytes(m.INLINE_LIMIT))]
        link.put(m.Run(options, calls), m.INLINE_LIMIT)
    sizes = []
    while (message := link.next_message()) is not None:
        sizes.append(len(message[0]))
    assert max(sizes) <= m.FRAME_LIMIT
    assert min(sizes[:-1]) >= HEADER_BYTES


def test_many_records_without_payload_are_cut_too() -> None:
    link = Link()
    for number in range(100_000):
        link.put(m.Stored(number))
    while (message := link.next_message()) is not None:
        assert len(message[0]) <= m.FRAME_LIMIT


@pytest.mark.parametrize(
    ("epoch", "number", "expected"),
    [
        (5, 2, Verdict.FRESH),
        (5, 1, Verdict.STALE),
        (5, 3, Verdict.GAP),
        (4, 2, Verdict.STALE),
        (6, 2, Verdict.STALE),
    ],
)
def test_verdicts(epoch: int, number: int, expected: Verdict) -> None:
    link = Link(epoch=5)
    for sent in range(2):
        assert link.on_message(m.Envelope(1, 5, sent, 0, []), ()) is Verdict.FRESH
    assert link.on_message(m.Envelope(1, epoch, number, 0, []), ()) is expected


def acknowledged(link: Link, peer: Link) -> int:
    """Have the peer take all that goes out; returns how many messages it has sent for that alone."""
    answers = 0
    while (message := link.next_message()) is not None:
        header, frames = message
        assert peer.on_message(DECODER.decode(*message), frames, header_bytes=len(header)) is Verdict.FRESH
        if (answer := peer.next_message()) is not None:
            answers += 1
            verdict = link.on_message(DECODER.decode(*answer), answer[1], header_bytes=len(answer[0]))
            assert verdict is Verdict.FRESH
    return answers


def test_there_is_room_until_the_peer_does_not_take_what_it_is_sent() -> None:
    link, peer = Link(room_bytes=1 << 20), Link(room_bytes=1 << 20)
    assert link.has_room
    put = 0
    while link.has_room:
        link.put(m.Goodbye(), 1 << 12)
        put += 1
    assert put == 256
    for record in ("x" * 1000,) * 400:
        link.put(m.HelloFirst(record), 1000)
    while link.next_message() is not None:
        pass
    assert link._small_bytes == 0
    assert link.has_room, "what was really sent counts, not what was thought of it"
    assert acknowledged(link, peer) == 0


def test_a_peer_that_only_listens_says_what_it_has_taken() -> None:
    link, peer = Link(room_bytes=1 << 20), Link(room_bytes=1 << 20)
    answers = 0
    for _ in range(40):
        while link.has_room:
            link.put(m.HelloFirst("x" * 100_000), 100_000)
        answers += acknowledged(link, peer)
        assert link.has_room
    assert 0 < answers < 200


@pytest.mark.parametrize("received", [{"bulk_received": 6}, {"header_received": 1000}])
def test_nobody_has_received_more_than_was_sent(received: dict[str, int]) -> None:
    """Who says so has lost count, or wants to be sent what it does not take."""
    link = Link(epoch=1)
    link.put_blob(cut_blob(BLOB, b"12345", keep=False))
    link.next_message()
    envelope: m.Envelope[m.Record] = m.Envelope(1, 1, 0, 0, [])
    assert link.on_message(msgspec.structs.replace(envelope, **received), ()) is Verdict.GAP
    assert link.on_message(msgspec.structs.replace(envelope, bulk_received=5), ()) is Verdict.FRESH


def test_the_bulk_lane_has_room_until_something_waits_in_it() -> None:
    link = Link(window_bytes=1 << 20)
    link.put_blob(cut_blob(BLOB, bytes(1 << 20), keep=False))
    assert link.has_bulk_room
    link.put_blob(cut_blob(BLOB, bytes(1 << 20), keep=False))
    while link.next_message() is not None:
        pass
    assert not link.has_bulk_room


def test_a_gap_changes_nothing() -> None:
    link = Link(epoch=1)
    assert link.on_message(m.Envelope(1, 1, 4, 10, []), [b"x"]) is Verdict.GAP
    assert link.on_message(m.Envelope(1, 1, 0, 0, []), ()) is Verdict.FRESH


def test_a_restart_forgets_both_directions() -> None:
    link = Link(epoch=1)
    link.put(m.Stored(1))
    link.put_blob(cut_blob(BLOB, bytes(1 << 20), keep=False))
    link.on_message(m.Envelope(1, 1, 0, 0, []), ())
    link.restart(2)
    assert link.is_drained
    assert link.on_message(m.Envelope(1, 2, 0, 0, []), ()) is Verdict.FRESH
    assert repr(link) == "<Link epoch 2, 0 out, 1 in, 0 records and 0 pieces waiting>"


def test_records_in_order_never_overtake_each_other() -> None:
    link = Link(window_bytes=2 * m.FRAME_LIMIT)
    link.put_blob(cut_blob(BlobId(b"a" * 16), bytes(5 * m.FRAME_LIMIT), keep=False))
    link.put_after_bulk(m.Stored(1), in_order=True)
    link.put(m.Stored(2))  # overtakes
    link.put(m.Stored(3), in_order=True)
    link.put_after_bulk(m.Stored(4))
    said: list[int] = []
    while (message := link.next_message()) is not None:
        records = DECODER.decode(*message).records
        said += [record.below for record in records if isinstance(record, m.Stored)]
        link._acknowledged = link._sent
    assert said == [2, 1, 3, 4]
    link.put(m.Stored(5), in_order=True)
    assert link.next_message() is not None, "nothing in order waits any more"
