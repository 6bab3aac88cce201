"""What a map repeats leaves this process once; tests count the bytes of the blobs that calls name."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from enginery.client.client import Client
from enginery.client.constants import ConstantsOfIterators, pack_if_big, with_constants
from enginery.objects.prepickled import PrePickled
from tests.unit.client.fake_session import FakeSession, make_client

TABLE = np.arange(100_000.0)
OTHER = np.ones(100_000)


@pytest.fixture
def parts() -> Iterator[tuple[Client, FakeSession]]:
    client, session = make_client((0, 1))
    yield client, session
    client.close()


def total(table: Any, item: int = 0) -> float:
    return (
        float(sum(each.sum() for each in table) if isinstance(table, (tuple, list)) else table.sum()) + item
    )


def bytes_on_the_wire(session: FakeSession) -> int:
    """Kept blobs count once, all others each time."""
    blobs = [blob for call in session.submissions for blob in call.blobs]
    kept = {blob.blob_id: blob.size_bytes for blob in blobs if blob.keep}
    return sum(kept.values()) + sum(blob.size_bytes for blob in blobs if not blob.keep)


def text_of_rows(table: Any) -> Iterable[Any]:
    return (table for _ in range(40))


REPEATED: dict[str, Callable[[Any], Any]] = {
    "list": lambda table: [table] * 40,
    "tuple": lambda table: (table,) * 40,
    "repeat": itertools.repeat,
    "generator": text_of_rows,
}


@pytest.mark.parametrize("form", REPEATED)
@pytest.mark.parametrize("value", [TABLE, [TABLE, OTHER[:5]], (TABLE,)], ids=["array", "list", "tuple"])
@pytest.mark.parametrize("how", ["balanced", "chunks", "direct", "imap"])
def test_a_repeated_argument_is_sent_once(
    parts: tuple[Client, FakeSession], form: str, value: Any, how: str
) -> None:
    client, session = parts
    items = range(40)
    view = client[:] if how == "direct" else client.load_balanced_view()
    if how == "imap":
        found = list(view.imap(total, REPEATED[form](value), items))
    else:
        chunks = {"chunksize": 7} if how == "chunks" else {}
        found = view.map_sync(total, REPEATED[form](value), items, **chunks)
    assert found == [total(value, item) for item in items]
    assert bytes_on_the_wire(session) < 1.1 * TABLE.nbytes


def test_several_objects_that_are_repeated(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    tables = [TABLE, OTHER] * 20
    assert client.load_balanced_view().map_sync(total, tables) == [total(table) for table in tables]
    assert bytes_on_the_wire(session) < 1.1 * 2 * TABLE.nbytes


@pytest.mark.parametrize("is_balanced", [True, False])
def test_a_constant_of_the_function_is_sent_once(
    parts: tuple[Client, FakeSession], is_balanced: bool
) -> None:
    client, session = parts
    view = client.load_balanced_view() if is_balanced else client[:]
    assert view.map_sync(functools.partial(total, TABLE), range(20)) == [total(TABLE, i) for i in range(20)]
    table = TABLE
    assert view.map_sync(lambda item: table[item], range(20)) == list(range(20))
    assert bytes_on_the_wire(session) < 1.1 * 2 * TABLE.nbytes


def test_later_changes_are_not_seen(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.is_held = True
    table = TABLE.copy()
    ar = client.load_balanced_view().map_async(total, [table] * 3)
    table[:] = 0
    session.is_held = False
    assert ar.get() == [total(TABLE)] * 3


def test_what_is_small_or_different_stays_as_it_is() -> None:
    small = ["text", (1, 2)]
    columns = (
        range(3),
        "abc",
        np.arange(3),
        [1, 1, 1],
        small * 3,
        [TABLE, TABLE.copy()],
        [TABLE],
        [],
        [None] * 3,
    )
    assert all(ours is theirs for ours, theirs in zip(with_constants(columns), columns, strict=True))


def test_what_cannot_be_packed_is_left_to_the_sender(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    with pytest.raises(TypeError, match=r"item 0, of type _thread\.lock, cannot be sent"):
        client[:].map_async(total, [threading.Lock()] * 3)
    assert session.submissions == []


def test_iterators_go_by_their_first_items() -> None:
    constants = ConstantsOfIterators(2)
    rows = [(TABLE, OTHER), (TABLE, TABLE), (OTHER, OTHER)]
    sent = [constants.in_row(row) for row in rows]
    assert isinstance(sent[0][0], PrePickled)
    assert sent[1] == (sent[0][0], TABLE)
    assert sent[2] == (OTHER, sent[0][1])
    constants = ConstantsOfIterators(1)
    chunk = ([TABLE, OTHER],)
    assert constants.in_chunk(chunk)[0] is chunk[0]  # nothing is repeated
    assert constants.in_row((TABLE,))[0] is TABLE


def test_big_texts_and_containers_are_packed() -> None:
    assert isinstance(pack_if_big("x" * 100_000), PrePickled)
    assert isinstance(pack_if_big([str(number) for number in range(30_000)]), PrePickled)
    assert pack_if_big("x") == "x"
    packed = PrePickled(TABLE)
    assert pack_if_big(packed) is packed
