"""Kept blobs are copied into shared memory once, however many calls name them meanwhile."""

from __future__ import annotations

from enginery.core.kept_copies import KeptCopies
from enginery.core.ledger import Blob, Copies, Ledger
from enginery.ids import BlobId, EngineId, content_id
from enginery.protocol import messages as m
from enginery.protocol.link import Link
from tests.unit.core.builders import CLIENT, options

BIG = bytes(range(256)) * 4096
KEPT = Blob(content_id([BIG]), BIG, keep=True)
OPTIONS = options(BlobId(b""))


def once(letter: bytes) -> Blob:
    return Blob(BlobId(letter * 16), BIG, keep=False)


class Desk:
    """A ledger that shares memory, its link, and the segments that were made."""

    def __init__(self) -> None:
        self.lent: set[str] = set()
        self.ledger: Ledger[str] = Ledger(CLIENT, is_lent=self.lent.__contains__)
        self.ledger.shared_from_bytes = 1000
        self.link = Link()
        self.hello()

    def hello(self, *, accepted: int = 0) -> None:
        self.link = Link()
        welcome = m.ClientWelcome("key", "name", [(0, accepted)], [], 0, 1000, 1 << 30)
        self.ledger.on_welcome(welcome, self.link)

    def submit(self, *blobs: Blob, engine: int | None = None) -> None:
        engines = () if engine is None else (EngineId(engine),)
        self.ledger.on_submitted(OPTIONS, b"p", blobs, ["a"], engines)
        self.ledger.pump(self.link)
        self.ledger.check()

    def take(self) -> list[Copies]:
        return self.ledger.take_copies()

    def copied(self, copies: Copies, *, room: bool = True) -> None:
        names = [f"pool/{len(self.lent) + number}" for number in range(len(copies.blobs) if room else 0)]
        self.lent.update(names)
        self.ledger.on_copied(copies, {b.blob_id: n for b, n in zip(copies.blobs, names, strict=False)})
        self.ledger.pump(self.link)
        self.ledger.check()

    def said(self) -> list[str]:
        words = []
        while (message := self.link.next_message()) is not None:
            for record in message_records(message[0]):
                if isinstance(record, m.Submit):
                    words += [f"call {call.number}" for call in record.calls]
                elif isinstance(record, m.ShareBlob):
                    words.append(f"share {record.segment}")
                elif isinstance(record, m.PutBlob) and record.offset == 0:
                    words.append("put")
        return words


def message_records(header: bytes) -> list[m.Record]:
    from enginery.protocol.codec import MalformedMessage, from_client

    try:
        return list(from_client().decode(header, []).records)
    except MalformedMessage:  # it wants the frames of its blobs
        return list(from_client().decode(header, [b""]).records)


def test_calls_that_come_meanwhile_wait_for_the_same_copy() -> None:
    desk = Desk()
    for _ in range(3):
        desk.submit(KEPT)
    (copies,) = desk.take()
    assert desk.said() == []
    desk.copied(copies)
    assert desk.said() == ["share pool/0", "call 1", "call 2", "call 3"]
    desk.submit(KEPT)
    assert desk.take() == []
    assert desk.said() == ["call 4"]


def test_a_call_waits_for_all_its_copies() -> None:
    desk = Desk()
    desk.submit(KEPT)
    desk.submit(KEPT, once(b"b"))
    first, second = desk.take()
    assert [blob.blob_id for blob in second.blobs] == [b"b" * 16]
    desk.copied(second)
    assert desk.said() == []
    desk.copied(first)
    assert desk.said() == ["share pool/1", "share pool/0", "call 1", "call 2"]


def test_without_room_it_goes_as_frames_once() -> None:
    desk = Desk()
    desk.submit(KEPT)
    desk.submit(KEPT)
    desk.copied(desk.take()[0], room=False)
    assert desk.ledger.take_unused_segments() == []
    assert desk.take() == []


def test_direct_calls_keep_their_order_behind_a_copy() -> None:
    desk = Desk()
    desk.submit(once(b"a"), engine=0)
    desk.submit(KEPT, engine=0)
    desk.submit(KEPT)
    first, kept = desk.take()
    desk.copied(kept)
    assert desk.said() == ["share pool/0", "call 3"]
    desk.copied(first)
    assert desk.said() == ["share pool/1", "call 1", "call 2"]


def test_a_segment_that_was_freed_is_named_no_more() -> None:
    desk = Desk()
    desk.submit(KEPT)
    desk.copied(desk.take()[0])
    desk.said()
    desk.lent.clear()
    desk.ledger.on_freed(["pool/0", "another"])
    desk.ledger.on_resend([1], [KEPT.blob_id])  # it cannot be had: frames, the next time
    desk.ledger.pump(desk.link)
    assert desk.take() == []
    desk.submit(KEPT)
    assert "share pool/0" not in desk.said()


def test_after_a_hello_what_the_controller_knew_is_its_own() -> None:
    desk = Desk()
    desk.submit(KEPT)
    desk.copied(desk.take()[0])
    desk.said()
    assert desk.ledger.unaccepted_segments() == set()
    desk.ledger.on_accepted([(1, 1)])
    desk.hello(accepted=1)
    assert desk.ledger.unaccepted_segments() == set()
    desk.submit(KEPT)
    assert [len(copies.blobs) for copies in desk.take()] == [1]


def test_a_copy_for_nobody_is_unused() -> None:
    desk = Desk()
    desk.submit(KEPT)
    (copies,) = desk.take()
    desk.ledger.on_closed("over")
    desk.ledger.on_copied(copies, {KEPT.blob_id: "pool/0"})
    assert desk.ledger.take_unused_segments() == ["pool/0"]


def test_what_was_forgotten_meanwhile_ends_all_the_same() -> None:
    copies: KeptCopies[list[int]] = KeptCopies()
    item: list[int] = []
    assert copies.begin(item, [KEPT]) == [KEPT]
    copies.segments[KEPT.blob_id] = "pool/0"
    copies.restart([KEPT.blob_id])
    assert copies.segments == {}
    assert copies.end(item, [KEPT]) == [item]
    assert repr(copies) == "<KeptCopies: 0 there, 0 under way>"
