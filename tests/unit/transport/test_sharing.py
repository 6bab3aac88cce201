"""Who shares memory with whom, and what travels as frames instead."""

from __future__ import annotations

import errno
import logging
import os
import signal
from pathlib import Path

import pytest

from enginery.transport import shared_memory as shm
from enginery.transport import sharing
from enginery.transport.shared_memory import SegmentGone
from enginery.transport.sharing import Sharing

LIMIT = 16 << 20
BIG = memoryview(bytes(range(256)) * 4096)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    directory = sharing.begin(Path("/somewhere/a"), "a proof", root=tmp_path)
    assert directory is not None
    return directory.path


def join(shared: Path, owner: str, proof: str = "a proof") -> Sharing:
    return Sharing.join(str(shared), proof, owner, limit_bytes=LIMIT)


def test_one_writes_and_the_other_reads(shared: Path) -> None:
    writer, reader = join(shared, "client-1"), join(shared, "engine-2")
    assert (writer.name, reader.name) == ("client-1", "engine-2")
    segment = writer.write(BIG)
    assert segment is not None
    assert reader.read(segment.name, segment.size_bytes) == BIG
    assert not (shared / "engine-2").exists(), "who writes nothing has no pool"
    writer.release([segment.name])
    writer.trim()
    with pytest.raises(SegmentGone):
        reader.read(segment.name, segment.size_bytes)
    writer.close()
    assert not (shared / "client-1").exists()


def test_small_buffers_are_not_shared(shared: Path) -> None:
    writer = join(shared, "client-1")
    assert writer.write(memoryview(bytes(sharing.LEAST_BYTES - 1))) is None


@pytest.mark.parametrize("proof", ["another proof", ""])
def test_without_the_proof_nothing_is_shared(shared: Path, proof: str) -> None:
    stranger = join(shared, "client-1", proof)
    assert stranger.name == ""
    assert stranger.write(BIG) is None
    with pytest.raises(SegmentGone):
        stranger.read("client-2/0.0", 1)


def test_a_directory_that_others_can_enter_is_not_trusted(shared: Path) -> None:
    shared.chmod(0o755)
    assert join(shared, "client-1").name == ""


def test_a_limit_of_nothing_shares_nothing(shared: Path) -> None:
    assert Sharing.join(str(shared), "a proof", "client-1", limit_bytes=0).name == ""


def test_the_default_limit_is_half_of_the_file_system(shared: Path) -> None:
    assert sharing.default_limit_bytes(shared) > 0
    assert Sharing.join(str(shared), "a proof", "client-1").name == "client-1"


def test_over_the_limit_buffers_travel_otherwise(shared: Path) -> None:
    writer = join(shared, "client-1")
    assert writer.write(memoryview(bytes(LIMIT + 1))) is None


def test_after_the_end_nothing_is_written_and_what_was_lent_stays(shared: Path) -> None:
    writer, reader = join(shared, "client-1"), join(shared, "engine-2")
    segment = writer.write(BIG)
    assert segment is not None
    writer.close()
    assert writer.write(BIG) is None
    assert reader.read(segment.name, segment.size_bytes) == BIG


def test_a_cluster_that_starts_removes_what_others_left(tmp_path: Path) -> None:
    first = sharing.begin(Path("/somewhere/a"), "proof", root=tmp_path)
    assert first is not None
    assert sharing.begin(Path("/somewhere/a"), "proof", root=tmp_path) is None, "it lives"
    first.abandon()  # as `kill -9` does
    second = sharing.begin(Path("/somewhere/b"), "proof", root=tmp_path)
    assert second is not None
    assert [path.name for path in tmp_path.iterdir()] == [second.path.name]
    assert shm.is_private(second.path)
    second.close()
    assert list(tmp_path.iterdir()) == []


def test_without_a_shared_file_system_there_is_nothing(tmp_path: Path) -> None:
    assert sharing.begin(Path("/somewhere"), "proof", root=tmp_path / "nothing") is None


def test_what_cannot_be_written_travels_otherwise(
    shared: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever submits a call, or has finished a task, must not hear of the file system."""
    writer = join(shared, "client-1")

    def refuse(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "enginery.sharing"):
        patch.setattr(os, "posix_fallocate", refuse)
        assert writer.write(BIG) is None
    assert "travels through sockets: [Errno 5]" in caplog.text
    assert writer.write(BIG) is not None
    writer.close()


def test_whether_a_segment_is_lent(shared: Path) -> None:
    writer = join(shared, "client-1")
    assert not writer.is_lent("client-1/0.0")
    segment = writer.write(BIG)
    assert segment is not None
    assert writer.is_lent(segment.name)
    assert writer.lent() == [segment.name]
    writer.release([segment.name])
    assert not writer.is_lent(segment.name)
    writer.close()


def test_beyond_its_share_of_descriptors_a_reader_gets_copies(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader = join(shared, "client-1"), join(shared, "engine-2")
    monkeypatch.setattr(sharing, "descriptors_share", lambda: 4)
    before = len(os.listdir("/proc/self/fd"))
    segments = [writer.write(BIG) for _ in range(2)]
    assert writer.write(BIG) is None, "a writer needs two for each"
    views = [reader.read(*segment) for segment in segments if segment for _ in range(50)]
    assert len(os.listdir("/proc/self/fd")) <= before + 1 + 4 + 4, "an owner's, the writer's, the reader's"
    assert all(view == BIG and view.readonly for view in views)
    del views[:]
    assert reader.read(segments[0].name, BIG.nbytes).obj.__class__.__name__ == "Mapping"  # type: ignore[union-attr]
    writer.close()


def test_a_forked_child_writes_nothing_and_takes_nothing_away(shared: Path) -> None:
    writer = join(shared, "client-1")
    segment = writer.write(BIG)
    assert segment is not None
    child = os.fork()
    if child == 0:
        try:
            is_quiet = writer.write(BIG) is None
            writer.release([segment.name])
            writer.trim()
            writer.close()
            can_read = writer.read(segment.name, BIG.nbytes) == BIG
            os._exit(0 if is_quiet and can_read else 1)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0) == (child, 0)
    assert writer.lent() == [segment.name]
    assert join(shared, "engine-2").read(segment.name, BIG.nbytes) == BIG
    writer.close()


def test_what_a_killed_controller_has_left_is_removed(tmp_path: Path) -> None:
    directory = sharing.begin(Path("/somewhere/a"), "a proof", root=tmp_path)
    assert directory is not None
    writer = join(directory.path, "client-1")
    assert writer.write(BIG) is not None
    directory.abandon()  # as `kill -9` does
    sharing.remove(Path("/somewhere/a"), root=tmp_path)
    assert list(tmp_path.iterdir()) == []
    sharing.remove(Path("/somewhere/a"), root=tmp_path)
    assert writer.write(BIG) is None
    writer.close()
