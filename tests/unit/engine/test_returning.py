"""The big buffers of results: copied when the task ends, and said as what they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from enginery.engine.returning import ResultBlob, copy_buffers
from enginery.ids import BlobId
from enginery.protocol import messages as m
from enginery.protocol.link import Link
from enginery.transport import sharing
from enginery.transport.sharing import Sharing

SIZE = 2 << 20


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Sharing]:
    directory = sharing.begin(Path("/somewhere"), "a proof", root=tmp_path)
    assert directory is not None
    engine = Sharing.join(str(directory.path), "a proof", "engine-1", limit_bytes=2 * SIZE)
    yield engine
    engine.close()
    directory.close()


def said(*blobs: ResultBlob) -> list[m.Record]:
    link = Link()
    for blob in blobs:
        blob.put(link)
    return [entry[0] for entry in (*link._small, *link._bulk)]


def test_a_result_does_not_change_with_the_array_that_was_returned(shared: Sharing) -> None:
    array = bytearray(b"a" * SIZE)
    (blob,) = copy_buffers([memoryview(array)], shared)
    array[:] = bytes(SIZE)
    assert shared.read(blob.segment, SIZE) == b"a" * SIZE
    assert said(blob) == [m.ShareBlob(blob.blob_id, SIZE, False, blob.segment)]
    assert blob.data == b"", "it is in memory once"


def test_without_shared_memory_it_is_copied_too() -> None:
    array = bytearray(b"a" * SIZE)
    (blob,) = copy_buffers([memoryview(array)], Sharing(None, "engine-1", limit_bytes=0))
    array[:] = bytes(SIZE)
    assert blob == ResultBlob(blob.blob_id, SIZE, b"a" * SIZE)
    pieces = said(blob)
    assert {type(piece) for piece in pieces} == {m.PutBlob}
    assert len(pieces) == SIZE // m.FRAME_LIMIT


def test_what_finds_no_room_and_what_is_small_travels_as_frames(shared: Sharing) -> None:
    big, small = memoryview(b"b" * SIZE), memoryview(b"s" * 100)
    blobs = copy_buffers([big, small, big, big], shared)
    assert [bool(blob.segment) for blob in blobs] == [True, False, True, False]
    assert [blob.size_bytes for blob in blobs] == [SIZE, 100, SIZE, SIZE]
    assert [bytes(blob.data[:1]) for blob in blobs] == [b"", b"s", b"", b"b"]
    assert len({blob.blob_id for blob in blobs}) == 4


def test_no_two_results_have_one_id(shared: Sharing) -> None:
    """Contents may be equal; what is dropped with one result must not be missed by another."""
    data = memoryview(bytes(1000))
    ids: set[BlobId] = {blob.blob_id for _ in range(100) for blob in copy_buffers([data, data], shared)}
    assert len(ids) == 200
