"""Buffers of a store in memory: whoever hands them over does not wait for the disk."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enginery.controller.store.buffers import BufferFiles, KeptBuffers
from enginery.controller.store.memory import MemoryStore
from enginery.controller.store.written_behind import WrittenBehind
from enginery.ids import BlobId
from tests.unit.controller.test_owed_results import accepted, blob, ended, payload

PATIENCE_S = 10.0


class SlowFiles(BufferFiles):
    """Writes when it is allowed to, and notes what."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.written: list[BlobId] = []
        self.error: Exception | None = None

    def write(self, buffers: KeptBuffers) -> None:
        self.entered.set()
        assert self.opened.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        self.written += [blob for blob, _ in buffers]
        super().write(buffers)


@pytest.fixture
def files(tmp_path: Path) -> SlowFiles:
    return SlowFiles(tmp_path / "results")


@pytest.fixture
def behind(files: SlowFiles) -> Iterator[WrittenBehind]:
    before = set(threading.enumerate())
    behind = WrittenBehind(files, limit_bytes=1500)
    assert set(threading.enumerate()) == before, "nothing to do, no thread"
    yield behind
    files.opened.set()
    behind.remove_all()
    assert set(threading.enumerate()) == before


def test_a_store_in_memory_takes_facts_while_the_disk_is_busy(
    files: SlowFiles, behind: WrittenBehind
) -> None:
    store = MemoryStore(files=behind)
    committed: list[int] = []
    facts = [*accepted(1, 2), ended(1, owed=True)]
    assert store.append(facts, on_committed=lambda: committed.append(1))
    assert files.entered.wait(PATIENCE_S)
    assert committed == [1]
    assert payload(store, 1) == b"v" * 1000
    assert not store.flush(0.0)
    assert store.append([ended(2, owed=True)])
    assert not store.append(accepted(3)), "too much waits for the disk"
    files.opened.set()
    assert store.flush(PATIENCE_S)
    assert store.append(accepted(3))
    assert [payload(store, number) for number in (1, 2)] == [b"v" * 1000] * 2
    assert len(files.written) == 2


def test_what_waits_is_read_as_it_will_be(files: SlowFiles, behind: WrittenBehind) -> None:
    assert behind.read(blob(1)) is None
    behind.write([(blob(1), [b"first ", b"", b"and second"])])
    assert repr(behind).startswith("<WrittenBehind: 1 wait for <BufferFiles: 0 in ")
    assert behind.read(blob(1)) == b"first and second"
    files.opened.set()
    assert behind.flush(PATIENCE_S)
    assert behind.read(blob(1)) == b"first and second"
    behind.remove([blob(1)])
    assert behind.flush(PATIENCE_S)
    assert behind.read(blob(1)) is None


def test_what_nobody_wants_any_more_is_not_written(files: SlowFiles, behind: WrittenBehind) -> None:
    behind.remove([blob(1)])
    behind.write([(blob(1), [b"holds up the thread"])])
    assert files.entered.wait(PATIENCE_S)
    behind.write([(blob(2), [b"removed"]), (blob(3), [b"before"])])
    behind.remove([blob(2), blob(3)])
    assert behind.read(blob(2)) is None
    behind.write([(blob(3), [b"handed over anew"])])
    files.opened.set()
    assert behind.flush(PATIENCE_S)
    assert files.written == [blob(1), blob(3)]
    assert behind.read(blob(3)) == b"handed over anew"


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("a defect")]
)
def test_what_cannot_be_written_is_missing_and_the_rest_goes_on(
    files: SlowFiles, behind: WrittenBehind, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    files.error = error
    files.opened.set()
    behind.write([(blob(1), [b"x" * 2000])])
    assert behind.flush(PATIENCE_S)
    assert behind.read(blob(1)) is None
    assert behind.has_room
    assert str(error) in caplog.text
    files.error = None
    behind.write([(blob(2), [b"second"])])
    assert behind.flush(PATIENCE_S)
    assert behind.read(blob(2)) == b"second"


def test_what_waits_at_the_end_is_not_written(files: SlowFiles, behind: WrittenBehind) -> None:
    behind.write([(blob(1), [b"first"])])
    assert files.entered.wait(PATIENCE_S)
    behind.write([(blob(2), [b"second"])])
    ending = threading.Thread(target=behind.remove_all)
    ending.start()
    _until(lambda: behind.read(blob(2)) is None)
    files.opened.set()
    ending.join(PATIENCE_S)
    assert files.written == [blob(1)]
    assert not (files._directory or Path()).exists()


def _until(holds: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(1000):
        if holds():
            return
        pause.wait(PATIENCE_S / 1000)
    raise AssertionError("it never came to that")
