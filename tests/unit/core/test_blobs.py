"""Which blobs the controller holds, for whom, and which engine knows them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from enginery.core.blobs import UNNAMED_FACTOR, BlobTable, EndedBlobs
from enginery.ids import BlobId, EngineId, TaskId, content_id
from enginery.protocol.link import cut_blob
from enginery.protocol.messages import FRAME_LIMIT, PutBlob, ShareBlob

ENGINE = EngineId(0)


def name(letter: str) -> BlobId:
    return BlobId(letter.encode() * 16)


def kept(letter: str, size: int = 10) -> BlobId:
    """The id of a kept blob of this letter."""
    return content_id([letter.encode() * size])


def put(
    table: BlobTable, letter: str, size: int = 10, *, keep: bool = False, pieces: int | None = None,
    source: str = "client",
) -> BlobId:  # fmt: skip
    data = letter.encode() * size
    blob = kept(letter, size) if keep else name(letter)
    for piece, frame in cut_blob(blob, data, keep=keep)[:pieces]:
        table.on_piece(piece, frame, source)
    table.check()
    return blob


def test_a_blob_that_somebody_holds_stays_until_the_last_lets_go() -> None:
    table = BlobTable()
    blob = put(table, "a")
    table.hold([blob])
    table.hold([blob])
    table.release([blob])
    assert table.missing([blob]) == []
    assert table.data(blob) == b"a" * 10
    table.release([blob])
    table.check()
    assert table.missing([blob]) == [blob]
    assert (len(table), table.total_bytes) == (0, 0)


def test_a_kept_blob_stays_for_the_next_call() -> None:
    table = BlobTable()
    blob = put(table, "a", keep=True)
    table.hold([blob])
    table.release([blob])
    assert table.missing([blob]) == []
    assert repr(table) == "<BlobTable of 1 blobs, 10 bytes, 1 idle>"


def use(table: BlobTable, letter: str) -> None:
    table.hold([kept(letter)])
    table.release([kept(letter)])


def test_the_least_recently_used_kept_blob_goes_first() -> None:
    table = BlobTable(kept_limit_bytes=25)
    for letter in "ab":
        put(table, letter, keep=True)
        use(table, letter)
    use(table, "a")
    put(table, "c", keep=True)
    assert table.missing(map(kept, "abc")) == [kept("b")]
    assert table.take_dropped() == [kept("b")]
    assert table.take_dropped() == []


class Walked(OrderedDict[BlobId, Any]):
    """Counts how many of its keys somebody looks at."""

    steps = 0

    def __iter__(self) -> Iterator[BlobId]:
        for key in super().__iter__():
            self.steps += 1
            yield key


def test_as_many_kept_blobs_are_looked_at_as_have_to_go() -> None:
    table = BlobTable(kept_limit_bytes=100 * 10)
    idle = table._idle = Walked()
    for letter in map(chr, range(200, 400)):
        blob = content_id([letter.encode() * 5])
        for piece, frame in cut_blob(blob, letter.encode() * 5, keep=True):
            table.on_piece(piece, frame, "client")
        table.hold([blob])
        table.release([blob])
    assert len(table) == 100
    assert idle.steps <= 4 * 100


def test_a_blob_above_the_limit_stays_for_the_call_behind_it() -> None:
    table = BlobTable(kept_limit_bytes=25)
    blob = put(table, "a", 100, keep=True)
    assert table.missing([blob]) == []
    put(table, "b", keep=True)
    assert table.missing([blob, kept("b")]) == [], "a call may need both"
    table.hold([blob])
    table.release([blob])
    put(table, "c", keep=True)
    assert table.missing([blob, kept("b"), kept("c")]) == [blob]
    table.check()


def test_what_nobody_names_is_bounded_too() -> None:
    table = BlobTable(kept_limit_bytes=25)
    for letter in "abcdefghijklmnopqrstuvwxyz":
        put(table, letter, keep=True)
    assert table.total_bytes <= 25 * UNNAMED_FACTOR
    table.check()


def test_what_a_gone_client_never_named_can_go() -> None:
    table = BlobTable(kept_limit_bytes=25)
    for letter in "abc":
        put(table, letter, keep=True)
    assert table.total_bytes == 30
    table.on_source_gone("client")
    assert table.missing(map(kept, "abc")) == [kept("a")]


def test_a_kept_blob_is_what_its_id_says() -> None:
    table = BlobTable()
    for piece, frame in cut_blob(kept("a"), b"something else", keep=True):
        assert not table.on_piece(piece, frame, "client")
    table.check()
    assert table.missing([kept("a")]) == [kept("a")]
    assert len(table) == 0


def test_a_blob_is_new_once() -> None:
    table = BlobTable()
    pieces = cut_blob(name("a"), bytes(FRAME_LIMIT + 1), keep=False)
    assert [table.on_piece(*piece, "client") for piece in pieces * 2] == [False, True, False, False]


def test_a_blob_is_missing_until_its_last_piece_has_come() -> None:
    table = BlobTable()
    size = 2 * FRAME_LIMIT + 1
    blob = put(table, "a", size, pieces=2)
    assert table.missing([blob]) == [blob]
    put(table, "a", size)
    assert table.missing([blob]) == []
    assert table.total_bytes == size
    assert len(table.pieces(blob)) == 3


def test_pieces_without_a_beginning_are_ignored() -> None:
    table = BlobTable()
    pieces = cut_blob(name("a"), bytes(2 * FRAME_LIMIT), keep=False)
    table.on_piece(*pieces[1], "client")
    table.check()
    assert table.missing([name("a")]) == [name("a")]
    assert table.total_bytes == 0


def test_a_blob_that_is_here_is_not_begun_anew() -> None:
    table = BlobTable()
    blob = put(table, "a")
    table.hold([blob])
    put(table, "a")
    assert table.total_bytes == 10
    assert table.size_bytes([blob]) == 10


def test_an_empty_blob_is_a_blob() -> None:
    table = BlobTable()
    assert table.missing([put(table, "a", 0)]) == []


def test_what_a_peer_leaves_behind_is_forgotten_unless_it_is_of_use() -> None:
    table = BlobTable()
    put(table, "a", 2 * FRAME_LIMIT, pieces=1)
    put(table, "b")
    put(table, "c", keep=True)
    table.hold([put(table, "d")])
    put(table, "e", source="other")
    table.on_source_gone("client")
    table.check()
    assert table.missing(map(name, "abde")) == [name("a"), name("b")]
    assert table.missing([kept("c")]) == []


def test_what_came_with_old_news_is_dropped_unless_it_is_of_use() -> None:
    table = BlobTable()
    table.hold([put(table, "a")])
    put(table, "b")
    put(table, "c", keep=True)
    table.drop_unheld([*map(name, "abd"), kept("c")])
    table.check()
    assert table.missing([name("a"), name("b"), kept("c")]) == [name("b")]


def test_releasing_what_is_not_held_does_nothing() -> None:
    table = BlobTable()
    table.release([put(table, "a"), name("b")])
    table.check()
    assert table.missing([name("a")]) == []


def test_an_engine_is_sent_a_blob_once() -> None:
    table = BlobTable()
    table.on_engine_hello(ENGINE)
    blob = put(table, "a", keep=True)
    assert table.to_send(ENGINE, [blob]) == [blob]
    assert table.to_send(ENGINE, [blob]) == []
    table.on_forgotten(ENGINE, [blob])
    assert table.to_send(ENGINE, [blob]) == [blob]
    table.on_engine_hello(ENGINE)
    assert table.to_send(ENGINE, [blob]) == [blob]


def test_a_blob_that_left_the_controller_is_unknown_to_engines() -> None:
    table = BlobTable()
    table.on_engine_hello(ENGINE)
    blob = put(table, "a")
    table.hold([blob])
    table.to_send(ENGINE, [blob])
    table.release([blob])
    table.hold([put(table, "a")])
    assert table.to_send(ENGINE, [blob]) == [blob]


def test_an_engine_drops_what_was_sent_for_one_task_only() -> None:
    table = BlobTable()
    table.on_engine_hello(ENGINE)
    once, again = put(table, "a"), put(table, "b", keep=True)
    table.hold([once, again])
    table.to_send(ENGINE, [once, again])
    assert table.to_drop(ENGINE, [once, again, name("c")]) == [once]
    assert table.to_drop(ENGINE, [once]) == []
    assert table.to_drop(EngineId(9), [once]) == []
    table.on_engine_gone(ENGINE)
    assert table.to_drop(ENGINE, [again]) == []


# ---------------------------------------------------------------- what ended tasks had


def keep(table: BlobTable, ended: EndedBlobs, number: int, *blobs: BlobId) -> None:
    """A task ends that held these."""
    table.hold(blobs)
    ended.on_ended(TaskId(number), blobs)
    table.release(blobs)
    table.check()
    ended.check()


def test_a_release_looks_at_as_many_engines_as_know_the_blob() -> None:
    class Looked(dict[EngineId, set[BlobId]]):
        steps = 0

        def __iter__(self) -> Iterator[EngineId]:
            raise AssertionError("a walk through all engines")

        items = keys = values = __iter__  # type: ignore[assignment]

        def __getitem__(self, engine: EngineId) -> set[BlobId]:
            self.steps += 1
            return super().__getitem__(engine)

    table = BlobTable()
    for number in range(1000):
        table.on_engine_hello(EngineId(number))
    blob = put(table, "a")
    table.hold([blob])
    for number in (3, 5):
        table.to_send(EngineId(number), [blob])
    known = table._known = Looked(table._known)
    table.release([blob])
    assert known.steps == 2
    assert not table.knows(EngineId(3), blob)


def test_the_blobs_of_tasks_that_ended_last_are_kept() -> None:
    table = BlobTable()
    ended = EndedBlobs(table, limit_bytes=25)
    blobs = [put(table, letter) for letter in "abc"]
    for number, blob in enumerate(blobs):
        keep(table, ended, number, blob)
    assert table.missing(blobs) == [blobs[0]]
    assert repr(ended) == "<EndedBlobs of 2 tasks, 20 bytes>"


def test_tasks_that_share_a_blob_are_bounded_in_number() -> None:
    table = BlobTable()
    ended = EndedBlobs(table, limit_tasks=3)
    blob = put(table, "a")
    for number in range(10):
        keep(table, ended, number, blob)
    assert repr(ended) == "<EndedBlobs of 3 tasks, 10 bytes>"
    assert table.missing([blob]) == []


def test_a_blob_that_many_tasks_had_counts_once() -> None:
    table = BlobTable()
    ended = EndedBlobs(table, limit_bytes=25)
    blob, other = put(table, "a", 20), put(table, "b", 5)
    for number in range(8):
        keep(table, ended, number, blob, blob)
    keep(table, ended, 8, other)
    assert ended.total_bytes == 25
    ended.forget(map(TaskId, range(7)))
    ended.check()
    assert table.missing([blob]) == []
    ended.forget([TaskId(7), TaskId(99)])
    ended.check()
    assert table.missing([blob, other]) == [blob]
    assert ended.total_bytes == 5


def test_what_is_larger_than_the_bound_is_not_kept_but_held_by_others() -> None:
    table = BlobTable()
    ended = EndedBlobs(table, limit_bytes=25)
    blob = put(table, "a", 30)
    table.hold([blob])  # a delivery that is under way
    keep(table, ended, 1, blob)
    assert len(ended) == 0
    assert table.missing([blob]) == []
    table.release([blob])
    assert table.missing([blob]) == [blob]


# ---------------------------------------------------------------- in shared memory


def share(number: int, segment: str, *, size: int = 1000, keep: bool = False) -> ShareBlob:
    return ShareBlob(BlobId(number.to_bytes(16, "big")), size, keep, segment)


def test_a_shared_blob_is_whole_at_once_and_freed_with_its_last_holder() -> None:
    table = BlobTable()
    record = share(1, "c-1/0.0")
    assert table.on_shared(record, "client")
    assert table.missing([record.blob]) == []
    assert table.shared(record.blob) == record
    assert table.pieces(record.blob) == []
    assert table.size_bytes([record.blob]) == 1000
    table.hold([record.blob])
    table.hold([record.blob])
    table.release([record.blob])
    assert table.segments_of("c-1") == {"c-1/0.0"}
    assert not table.has_freed
    table.release([record.blob])
    assert table.take_freed() == {"client": ["c-1/0.0"]}
    assert table.take_freed() == {}
    assert table.segments_of("c-1") == set()
    table.check()


def test_saying_it_again_frees_nothing_but_another_segment() -> None:
    table = BlobTable()
    table.on_shared(share(1, "c-1/0.0", keep=True), "client")
    assert not table.on_shared(share(1, "c-1/0.0", keep=True), "client")
    assert not table.has_freed
    assert not table.on_shared(share(1, "c-2/5.1", keep=True), "other")
    assert table.take_freed() == {"other": ["c-2/5.1"]}
    table.check()


def test_a_shared_blob_takes_the_place_of_a_part() -> None:
    table = BlobTable()
    blob = BlobId((1).to_bytes(16, "big"))
    table.on_piece(PutBlob(blob, 1000, 0, False), b"x" * 400, "client")
    assert table.on_shared(share(1, "c-1/0.0"), "client")
    assert table.total_bytes == 1000
    assert not table.on_piece(PutBlob(blob, 1000, 400, False), b"x" * 600, "client")
    table.check()


def test_what_a_gone_writer_had_sent_for_nothing_is_freed() -> None:
    table = BlobTable()
    table.on_shared(share(1, "c-1/0.0"), "client")
    table.on_source_gone("client")
    assert table.take_freed() == {"client": ["c-1/0.0"]}


def test_one_segment_holds_one_blob() -> None:
    table = BlobTable()
    assert table.on_shared(share(1, "c-1/0.0"), "client")
    assert not table.on_shared(share(2, "c-1/0.0"), "client")
    assert table.missing([share(2, "").blob]) == [share(2, "").blob]
    table.check()
