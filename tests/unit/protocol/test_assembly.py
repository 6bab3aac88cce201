"""Blobs put together again where they are used."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from enginery.ids import BlobId
from enginery.protocol.assembly import BlobCache
from enginery.protocol.codec import Buffer
from enginery.protocol.link import cut_blob
from enginery.protocol.messages import FRAME_LIMIT

SIZE = 2 * FRAME_LIMIT + 3


def name(letter: str) -> BlobId:
    return BlobId(letter.encode() * 16)


def put(cache: BlobCache, letter: str, size: int, *, keep: bool = False, pieces: int | None = None) -> None:
    for piece in cut_blob(name(letter), letter.encode() * size, keep=keep)[:pieces]:
        cache.on_piece(*piece)


def test_pieces_become_the_blob() -> None:
    cache = BlobCache()
    put(cache, "a", SIZE, pieces=2)
    assert cache.get(name("a")) is None
    put(cache, "a", SIZE)
    assert cache.get(name("a")) == b"a" * SIZE


def test_a_blob_of_one_frame_is_that_frame() -> None:
    cache = BlobCache()
    ((record, frame),) = cut_blob(name("a"), b"data", keep=False)
    cache.on_piece(record, frame)
    assert cache.get(name("a")) is frame


def test_an_empty_blob_is_a_blob() -> None:
    cache = BlobCache()
    put(cache, "a", 0)
    assert cache.get(name("a")) == b""


def test_pieces_without_a_beginning_are_ignored() -> None:
    cache = BlobCache()
    cache.on_piece(*cut_blob(name("a"), bytes(SIZE), keep=False)[1])
    assert cache.get(name("a")) is None


def test_what_was_sent_for_one_use_is_dropped_and_what_is_kept_stays() -> None:
    cache = BlobCache()
    put(cache, "a", 10)
    put(cache, "b", 10, keep=True)
    for letter in "ab":
        cache.drop(name(letter))
    assert name("a") not in cache
    assert name("b") in cache


def test_after_a_hello_only_what_is_kept_is_still_here() -> None:
    cache = BlobCache()
    put(cache, "a", 10)
    put(cache, "b", 10, keep=True)
    put(cache, "c", SIZE, pieces=1)
    cache.restart()
    assert [name(letter) in cache for letter in "abc"] == [False, True, False]
    for piece in cut_blob(name("c"), bytes(SIZE), keep=False)[1:]:
        cache.on_piece(*piece)
    assert name("c") not in cache


def test_the_least_recently_used_kept_blob_goes_first() -> None:
    cache = BlobCache(cache_bytes=25)
    for letter in "ab":
        put(cache, letter, 10, keep=True)
        cache.get(name(letter))
    cache.get(name("a"))
    put(cache, "c", 10, keep=True)
    assert [name(letter) in cache for letter in "abc"] == [True, False, True]


class Walked(OrderedDict[BlobId, Buffer]):
    """Counts how many of its keys somebody looks at."""

    steps = 0

    def __iter__(self) -> Iterator[BlobId]:
        for key in super().__iter__():
            self.steps += 1
            yield key


def test_as_many_kept_blobs_are_looked_at_as_have_to_go() -> None:
    cache = BlobCache(cache_bytes=100 * 10)
    kept = cache._kept = Walked()
    for letter in map(chr, range(300)):
        blob = BlobId(f"{letter:>8}".encode("utf-16-be"))
        cache.put(blob, b"x" * 10, keep=True)
        cache.get(blob)
    assert len(kept) == 100
    assert kept.steps <= 3 * 200


def test_what_a_task_has_not_got_yet_stays() -> None:
    cache = BlobCache(cache_bytes=25)
    for letter in "abc":
        put(cache, letter, 20, keep=True)
    assert all(cache.get(name(letter)) is not None for letter in "abc"), "a task may need all of them"
    put(cache, "d", 20, keep=True)
    assert [name(letter) in cache for letter in "abcd"] == [False, False, False, True]
