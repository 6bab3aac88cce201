"""Which blobs the controller holds, for whom, and which engine knows them."""

from __future__ import annotations

from enginery.core.blobs import BlobTable
from enginery.ids import BlobId, EngineId, content_id
from enginery.protocol.link import cut_blob
from enginery.protocol.messages import FRAME_LIMIT

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


def test_the_least_recently_used_kept_blob_goes_first() -> None:
    table = BlobTable(kept_limit_bytes=25)
    for letter in "ab":
        put(table, letter, keep=True)
    table.hold([kept("a")])
    table.release([kept("a")])
    put(table, "c", keep=True)
    assert table.missing(map(kept, "abc")) == [kept("b")]
    assert table.take_dropped() == [kept("b")]
    assert table.take_dropped() == []


def test_a_blob_above_the_limit_stays_for_the_call_behind_it() -> None:
    table = BlobTable(kept_limit_bytes=25)
    blob = put(table, "a", 1000, keep=True)
    assert table.missing([blob]) == []
    put(table, "b", keep=True)
    assert table.missing([blob, kept("b")]) == [blob]


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
