"""Results that only the store has: kept whatever its bounds say, their large buffers in files."""

from __future__ import annotations

import errno
import gc
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from enginery.controller.store import buffers as buffers_module
from enginery.controller.store.buffers import BufferFiles
from enginery.controller.store.memory import MemoryStore
from enginery.controller.store.sqlite import SqliteStore
from enginery.controller.store.store import HistoryStore
from enginery.controller.store.written_behind import WrittenBehind
from enginery.ids import BlobId, ClientId, EngineId, TaskId, make_task_id
from enginery.protocol import history as h
from enginery.protocol.messages import Kind, Status, TaskOptions, TaskResult

OpenStore = Callable[..., HistoryStore]


@pytest.fixture(params=["memory", "memory, written behind", "sqlite"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    opened: list[HistoryStore] = []

    def open_one(**limits: Any) -> HistoryStore:
        store: HistoryStore
        if request.param == "memory":
            store = MemoryStore(files=BufferFiles(tmp_path / "history-results"), **limits)
        elif request.param == "memory, written behind":
            behind = WrittenBehind(BufferFiles(tmp_path / "history-results"))
            store = MemoryStore(files=behind, **limits)
        else:
            store = SqliteStore.open(tmp_path / "history.sqlite", **limits)
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def files(tmp_path: Path) -> Callable[[], list[str]]:
    directory = tmp_path / "history-results"
    return lambda: sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


def task(number: int) -> TaskId:
    return make_task_id(ClientId(1), number)


def blob(number: int) -> BlobId:
    return BlobId(number.to_bytes(16, "big"))


def accepted(*numbers: int) -> list[h.HistoryFact]:
    options = TaskOptions(Kind.CALL)
    return [h.TaskAccepted(task(number), 1000.0 + number, options, b"call") for number in numbers]


def ended(number: int, *, owed: bool = False, blobs: tuple[BlobId, ...] = ()) -> h.TaskEnded:
    result = TaskResult(task(number), Status.OK, b"v" * 1000, blobs, EngineId(0), completed=2000.0 + number)
    return h.TaskEnded(result, owed)


def teach(store: HistoryStore, *facts: h.HistoryFact, buffers: Any = ()) -> None:
    assert store.append(facts, buffers=buffers)
    assert store.flush(10)


def payload(store: HistoryStore, number: int) -> bytes | None:
    row = store.task(task(number))
    return None if row is None else row.payload


# ---------------------------------------------------------------- what is owed


@pytest.mark.parametrize("at_once", [True, False])
def test_what_is_owed_is_kept_whatever_the_bounds_say(open_store: OpenStore, at_once: bool) -> None:
    store = open_store(payload_limit_bytes=2500, record_limit=3)
    for number in range(1, 11):
        facts = [*accepted(number), ended(number, owed=number <= 5)]
        if at_once:
            teach(store, *facts)
        else:
            for fact in facts:
                teach(store, fact)
                store.count()
    assert [payload(store, number) for number in range(1, 6)] == [b"v" * 1000] * 5
    assert store.count() == 5, "more than the limit, and none that is not owed"
    row = store.task(task(1))
    assert row is not None
    assert (row.owed, row.payload_bytes, row.status) == (True, 0, Status.OK)
    assert store.statistics().payload_bytes == 0
    assert store.statistics().unfinished == 0
    assert store.ended_tasks() == [task(number) for number in range(1, 6)]


def test_what_is_released_counts_and_goes_in_its_turn(open_store: OpenStore) -> None:
    store = open_store(payload_limit_bytes=3500)
    teach(store, *accepted(1, 2, 3, 4), *(ended(number, owed=True) for number in (1, 2, 3, 4)))
    teach(store, h.ResultsReleased([task(number) for number in (1, 2, 9)]))
    assert [payload(store, number) is None for number in (1, 2, 3, 4)] == [False] * 4
    row = store.task(task(1))
    assert row is not None
    assert (row.owed, row.payload_bytes > 1000) == (False, True)
    teach(store, h.TaskDelivered(task(2)), h.ResultsReleased([task(3), task(4)]))
    assert [payload(store, number) is None for number in (1, 2, 3, 4)].count(True) == 1
    assert payload(store, 2) is None, "its client has it"
    assert 3000 < store.statistics().payload_bytes <= 3500


def test_what_is_owed_and_released_at_once(open_store: OpenStore) -> None:
    store = open_store()
    teach(store, *accepted(1), ended(1, owed=True), h.ResultsReleased([task(1)]))
    row = store.task(task(1))
    assert row is not None
    assert (row.owed, row.payload, row.payload_bytes > 1000) == (False, b"v" * 1000, True)


def test_text_that_comes_late_does_not_count_while_it_is_owed(open_store: OpenStore) -> None:
    store = open_store()
    teach(store, *accepted(1), ended(1, owed=True))
    teach(store, h.TaskText(task(1), EngineId(0), "stdout", "late"), h.TaskData(task(1), "x", b"1"))
    row = store.task(task(1))
    assert row is not None
    assert (row.stdout, row.published.values, row.payload_bytes) == ("late", {"x": b"1"}, 0)
    assert store.statistics().payload_bytes == 0


def test_what_is_owed_may_be_purged(open_store: OpenStore, files: Callable[[], list[str]]) -> None:
    store = open_store()
    facts = [*accepted(1), ended(1, owed=True, blobs=(blob(1),)), h.BuffersKept(task(1), [blob(1)], 3)]
    teach(store, *facts, buffers=[(blob(1), [b"abc"])])
    assert store.count() == 1
    assert files() != []
    teach(store, h.TasksPurged([task(1)]))
    assert store.count() == 0
    assert files() == []
    teach(store, h.ResultsReleased([task(1)]))
    assert store.statistics().payload_bytes == 0


# ---------------------------------------------------------------- large buffers


def keep(store: HistoryStore, number: int, data: bytes, *, owed: bool = False) -> None:
    pieces = [data[start : start + 1000] for start in range(0, len(data), 1000)]
    kept = h.BuffersKept(task(number), [blob(number)], len(data))
    facts = [*accepted(number), ended(number, owed=owed, blobs=(blob(number),)), kept]
    teach(store, *facts, buffers=[(blob(number), pieces)])


def test_buffers_are_kept_and_read(open_store: OpenStore) -> None:
    store = open_store()
    small, large = os.urandom(5000), os.urandom(3_000_001)
    keep(store, 1, small)
    keep(store, 2, large)
    found = [store.buffer(blob(number)) for number in (1, 2, 3)]
    assert found == [small, large, None]
    rows = list(store.find([task(1), task(2)]))
    assert [row.buffer_bytes for row in rows] == [len(small), len(large)]


def test_buffers_count_and_go_with_the_payloads(
    open_store: OpenStore, files: Callable[[], list[str]]
) -> None:
    store = open_store(payload_limit_bytes=20_000)
    for number in (1, 2, 3):
        keep(store, number, bytes(8000))
    assert store.count() == 3
    assert payload(store, 1) is None
    assert [store.buffer(blob(number)) is None for number in (1, 2, 3)] == [True, False, False]
    row = store.task(task(1))
    assert row is not None
    assert (row.buffer_bytes, row.blobs) == (0, ())
    assert 16_000 < store.statistics().payload_bytes <= 20_000


def test_buffers_that_are_owed_stay(open_store: OpenStore, files: Callable[[], list[str]]) -> None:
    store = open_store(payload_limit_bytes=20_000)
    for number in (1, 2, 3, 4):
        keep(store, number, bytes(8000), owed=True)
    assert store.count() == 4
    assert all(store.buffer(blob(number)) is not None for number in (1, 2, 3, 4))
    teach(store, h.ResultsReleased([task(number) for number in (1, 2, 3, 4)]))
    assert store.count() == 4
    assert [store.buffer(blob(number)) is None for number in (1, 2, 3, 4)].count(True) == 2


def test_buffers_may_come_after_the_end_and_after_the_payload_has_gone(
    open_store: OpenStore, files: Callable[[], list[str]]
) -> None:
    store = open_store(payload_limit_bytes=500)
    teach(store, *accepted(1), ended(1, blobs=(blob(1),)))
    assert payload(store, 1) is None
    teach(store, h.BuffersKept(task(1), [blob(1)], 3), buffers=[(blob(1), [b"abc"])])
    teach(store, h.BuffersKept(task(9), [blob(9)], 3), buffers=[(blob(9), [b"abc"])])
    assert store.count() == 1
    assert files() == []


def test_files_are_the_users_own_and_go_with_the_rows(
    open_store: OpenStore, files: Callable[[], list[str]], tmp_path: Path
) -> None:
    store = open_store(record_limit=2)
    for number in (1, 2, 3):
        keep(store, number, bytes(1000))
    assert store.count() == 2
    assert [store.buffer(blob(number)) is None for number in (1, 2, 3)] == [True, False, False]
    (file,) = files()
    paths = [tmp_path / "history-results", tmp_path / "history-results" / file]
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o700, 0o600]


def test_a_disk_that_is_full_loses_the_buffer_and_says_so(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(descriptor: int, pieces: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = open_store()
    monkeypatch.setattr(buffers_module, "_write_all", full)
    with caplog.at_level(logging.ERROR):
        keep(store, 1, bytes(1000), owed=True)
        assert store.count() == 1
    assert store.buffer(blob(1)) is None
    assert "results that nobody takes cannot be kept in" in caplog.text
    assert "No space left on device" in caplog.text


# ---------------------------------------------------------------- another life


def test_the_next_life_owes_nothing_and_has_no_file_too_many(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    store = SqliteStore.open(path)
    keep(store, 1, bytes(1000), owed=True)
    keep(store, 2, bytes(1000))
    store.close()
    (file,) = (tmp_path / "history-results").iterdir()
    with file.open("ab") as torn:
        torn.write(blob(7) + (1000).to_bytes(8, "little") + b"half of it")
    (file.parent / "00000099").write_bytes(b"nothing")
    (file.parent / "stray").write_bytes(b"nothing")
    again = SqliteStore.open(path, payload_limit_bytes=1 << 20, resumes=False)
    row = again.task(task(1))
    assert row is not None
    assert (row.owed, row.payload_bytes > 2000) == (False, True)
    assert again.buffer(blob(1)) == bytes(1000)
    assert again.buffer(blob(7)) is None
    assert list(file.parent.iterdir()) == [file]
    assert again.statistics().payload_bytes > 4000
    keep(again, 3, bytes(1000))
    assert len(list(file.parent.iterdir())) == 2, "what was torn is not written on"
    teach(again, h.TasksPurged([task(1), task(2), task(3)]))
    assert again.count() == 0
    assert list(file.parent.iterdir()) == []
    again.close()


def test_a_store_in_memory_takes_its_files_along(tmp_path: Path) -> None:
    store = MemoryStore(files=BufferFiles(tmp_path / "results"))
    keep(store, 1, bytes(1000), owed=True)
    (file,) = (tmp_path / "results").iterdir()
    assert file.stat().st_size > 2000, "its payload is there too"
    store.close()
    assert not (tmp_path / "results").exists()


def test_files_that_are_given_no_place_have_one_of_their_own() -> None:
    files = BufferFiles()
    assert repr(files) == "<BufferFiles: 0 in a directory that is not made yet>"
    assert files.read(blob(1)) is None
    files.remove([blob(1)])
    files.write([(blob(1), [b"a" * 100, b"", b"b"] * 1000), (blob(2), []), (blob(3), [b"third"])])
    files.write([(blob(1), [b"once is enough"])])
    found = files.read(blob(1))
    assert found == (b"a" * 100 + b"b") * 1000
    assert (files.read(blob(2)), files.read(blob(3))) == (b"", b"third")
    files.remove_all()
    assert files.read(blob(1)) is None
    assert found is not None
    assert len(found) == 101_000, "it outlives its file"
    files.write([(blob(4), [b"fourth"])])
    directory = files._directory
    assert directory is not None
    assert directory.is_dir()
    del files
    gc.collect()
    assert not directory.exists(), "nobody else knows of it"


def test_a_file_that_is_large_gets_no_more_and_goes_with_the_last_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffers_module, "FILE_BYTES", 3000)
    files = BufferFiles(tmp_path / "results")
    for number in range(8):
        files.write([(blob(number), [bytes([number]) * 1000])])
    names = sorted(path.name for path in (tmp_path / "results").iterdir())
    assert names == ["00000001", "00000002", "00000003"]
    files.remove([blob(number) for number in (0, 1, 3, 4, 5)])
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["00000001", "00000003"]
    files.remove([blob(number) for number in (6, 7)])
    files.write([(blob(8), [b"new"])])
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["00000001", "00000004"]
    assert files.read(blob(2)) == bytes([2]) * 1000
    assert files.read(blob(8)) == b"new"


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = BufferFiles(tmp_path / "results")
    files.write([(blob(1), [b"first"])])

    def torn(descriptor: int, pieces: Any) -> None:
        os.write(descriptor, b"half of")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(buffers_module, "_write_all", torn)
        with pytest.raises(OSError, match="No space left"):
            files.write([(blob(2), [b"second"])])
    assert files.read(blob(2)) is None
    files.write([(blob(3), [b"third"])])
    assert (files.read(blob(1)), files.read(blob(3))) == (b"first", b"third")
    again = BufferFiles(tmp_path / "results")
    again.open({blob(1), blob(3)})
    assert (again.read(blob(1)), again.read(blob(3))) == (b"first", b"third")
