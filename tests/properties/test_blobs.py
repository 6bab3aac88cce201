"""`BlobTable` against the obvious counting, with random pieces, holders and engines."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from enginery.core.blobs import BlobTable
from enginery.ids import BlobId, EngineId, content_id
from enginery.protocol.link import cut_blob

letters = st.sampled_from("abcdef")
steps = st.one_of(
    st.tuples(st.just("put"), letters, st.integers(1, 2)),
    st.tuples(st.just("hold"), letters, st.just(0)),
    st.tuples(st.just("release"), letters, st.just(0)),
    st.tuples(st.just("source gone"), letters, st.integers(1, 2)),
    st.tuples(st.just("drop"), letters, st.just(0)),
    st.tuples(st.just("send"), letters, st.integers(1, 2)),
    st.tuples(st.just("hello"), letters, st.integers(1, 2)),
)
KEPT = "abc"
SIZE = 10


def name(letter: str) -> BlobId:
    data = letter.encode() * SIZE
    return content_id([data]) if letter in KEPT else BlobId(data)


@given(st.lists(steps, max_size=80), st.sampled_from([0, 15, 1000]))
def test_what_is_held_is_here_and_what_is_of_no_use_is_not(
    plan: list[tuple[str, str, int]], limit: int
) -> None:
    table = BlobTable(kept_limit_bytes=limit)
    holders: Counter[str] = Counter()
    sent: dict[int, set[str]] = {1: set(), 2: set()}
    for engine in sent:
        table.on_engine_hello(EngineId(engine))
    for what, letter, who in plan:
        blob = name(letter)
        if what == "put":
            for piece in cut_blob(blob, letter.encode() * SIZE, keep=letter in KEPT):
                table.on_piece(*piece, who)
        elif what == "hold" and not table.missing([blob]):
            table.hold([blob])
            holders[letter] += 1
        elif what == "release" and holders[letter]:
            table.release([blob])
            holders[letter] -= 1
        elif what == "source gone":
            table.on_source_gone(who)
        elif what == "drop":
            table.drop_unheld([blob])
        elif what == "send" and not table.missing([blob]):
            if table.to_send(EngineId(who), [blob]):
                assert letter not in sent[who] or not holders[letter]
                sent[who].add(letter)
            else:
                assert letter in sent[who]
        elif what == "hello":
            table.on_engine_hello(EngineId(who))
            sent[who].clear()
        table.check()
        for held, count in holders.items():
            if count:
                assert table.data(name(held)) == held.encode() * SIZE
    for letter, count in holders.items():
        table.release([name(letter)] * count)
    for who in (1, 2):
        table.on_source_gone(who)
    table.check()
    assert table._blobs.keys() <= set(map(name, KEPT))
    assert table.total_bytes <= max(limit, SIZE)
