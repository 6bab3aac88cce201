"""Segments: what readers have mapped never changes, and nothing outlives its owner."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from enginery.objects.arrays import private_buffer
from enginery.transport import shared_memory as shm
from enginery.transport.shared_memory import Mapping, Segment, SegmentGone, SegmentPool, map_segment

LIMIT = 64 << 20
MIB = 1 << 20


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Path]:
    directory = shm.SharedDirectory.make(tmp_path / "cluster")
    yield directory.path
    directory.close()
    assert not directory.path.exists()


@pytest.fixture
def pool(cluster: Path) -> Iterator[SegmentPool]:
    pool = SegmentPool.open(cluster, "writer", limit_bytes=LIMIT)
    yield pool
    pool.close()


def filled(byte: int, size_bytes: int = MIB) -> memoryview:
    return memoryview(bytes([byte]) * size_bytes)


def write(pool: SegmentPool, data: memoryview) -> Segment:
    segment = pool.write(data)
    assert segment is not None
    return segment


def test_a_reader_has_the_bytes_and_cannot_change_them(pool: SegmentPool, cluster: Path) -> None:
    data = memoryview(random.Random(7).randbytes(3 * MIB + 5))
    view = map_segment(cluster, write(pool, data))
    assert view == data
    assert view.readonly


def test_a_private_view_may_be_changed_and_nobody_sees_it(pool: SegmentPool, cluster: Path) -> None:
    segment = write(pool, filled(1))
    view = map_segment(cluster, segment)
    private = as_private(view)
    assert private is not None
    private[0] = 9
    assert view[0] == map_segment(cluster, segment)[0] == 1


def test_a_private_view_counts_as_a_reader(pool: SegmentPool, cluster: Path) -> None:
    segment = write(pool, filled(1))
    private = as_private(map_segment(cluster, segment))
    assert private is not None
    pool.release(segment.name)
    second = write(pool, filled(2))
    assert pool.statistics().segments == 2, "its untouched pages are the segment's"
    assert (private[-1], map_segment(cluster, second)[-1]) == (1, 2)
    del private
    write(pool, filled(3))
    assert pool.statistics().segments == 2


def test_what_was_removed_cannot_be_private(pool: SegmentPool, cluster: Path) -> None:
    segment = write(pool, filled(1))
    view = map_segment(cluster, segment)
    (cluster / segment.name).unlink()
    assert as_private(view) is None
    assert bytes(private_buffer(view)) == bytes(view), "then it is copied"


def as_private(view: memoryview) -> memoryview | None:
    mapping = view.obj
    assert isinstance(mapping, Mapping)
    return mapping.as_private()


def test_a_lent_segment_is_not_used_again(pool: SegmentPool, cluster: Path) -> None:
    first = write(pool, filled(1))
    second = write(pool, filled(2))
    assert first.name != second.name
    assert map_segment(cluster, first)[0] == 1


def test_a_released_segment_is_used_again_under_another_name(pool: SegmentPool, cluster: Path) -> None:
    first = write(pool, filled(1))
    pool.release(first.name)
    second = write(pool, filled(2))
    assert pool.statistics().segments == 1
    assert first.name != second.name
    with pytest.raises(SegmentGone):
        map_segment(cluster, first)
    assert map_segment(cluster, second)[0] == 2


def test_a_segment_that_is_read_is_not_used_again(pool: SegmentPool, cluster: Path) -> None:
    first = write(pool, filled(1))
    view = map_segment(cluster, first)
    part = view[10:20]
    pool.release(first.name)
    write(pool, filled(2))
    assert pool.statistics().segments == 2
    assert part == b"\1" * 10
    del view, part  # the last view of it
    write(pool, filled(3))
    assert pool.statistics().segments == 2


def test_much_larger_segments_are_not_wasted_on_small_buffers(pool: SegmentPool) -> None:
    large = write(pool, filled(1, 16 * MIB))
    pool.release(large.name)
    write(pool, filled(2))
    assert pool.statistics().segments == 2


def test_over_the_limit_nothing_is_written(pool: SegmentPool) -> None:
    write(pool, filled(1, 40 * MIB))
    assert pool.write(filled(2, 40 * MIB)) is None
    assert pool.statistics().total_bytes <= LIMIT


def test_idle_segments_make_room_for_others(pool: SegmentPool, cluster: Path) -> None:
    first = write(pool, filled(1, 40 * MIB))
    pool.release(first.name)
    second = write(pool, filled(2, 10 * MIB))
    third = write(pool, filled(3, 50 * MIB))
    assert map_segment(cluster, second)[-1] == 2
    assert map_segment(cluster, third)[-1] == 3


def test_trimming_gives_idle_segments_back(pool: SegmentPool) -> None:
    segment = write(pool, filled(1))
    pool.release(segment.name)
    pool.trim()
    assert pool.statistics().total_bytes == 0


def test_a_full_file_system_is_no_error(pool: SegmentPool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert pool.write(filled(1)) is None
    assert pool.statistics().segments == 0


def test_a_write_that_fails_loses_the_segment_and_nothing_else(
    pool: SegmentPool, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = write(pool, filled(1))

    def refuse(fd: int, data: memoryview, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        assert pool.write(filled(2)) is None
    assert pool.statistics().segments == 1
    assert map_segment(cluster, kept)[0] == 1


def test_an_interrupted_write_loses_the_segment_and_nothing_else(
    pool: SegmentPool, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = write(pool, filled(1))
    pool.release(write(pool, filled(2)).name)

    def interrupt(pooled: object, data: memoryview) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shm._Pooled, "fill", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pool.write(filled(3))
    assert pool.statistics() == (1, MIB, 1, MIB)
    assert map_segment(cluster, kept)[0] == 1
    assert map_segment(cluster, write(pool, filled(4)))[0] == 4


def test_a_segment_that_somebody_has_removed_is_not_used_again(pool: SegmentPool, cluster: Path) -> None:
    segment = write(pool, filled(1))
    pool.release(segment.name)
    (cluster / segment.name).unlink()
    assert map_segment(cluster, write(pool, filled(2)))[0] == 2
    assert pool.statistics() == (1, MIB, 1, MIB)


def test_without_its_directory_a_pool_writes_nothing(pool: SegmentPool, cluster: Path) -> None:
    """Its cluster has ended and has taken it away."""
    pool.release(write(pool, filled(1)).name)
    shm.remove(cluster)
    assert pool.write(filled(2)) is None
    assert pool.statistics().segments == 0


def test_no_more_segments_than_may_be(cluster: Path) -> None:
    """Each costs descriptors, which the process needs for other things."""
    pool = SegmentPool.open(cluster, "small", limit_bytes=LIMIT, limit_segments=2)
    first, second = write(pool, filled(1)), write(pool, filled(2))
    assert pool.write(filled(3)) is None
    pool.release(first.name)
    large = write(pool, filled(4, 8 * MIB))
    assert pool.statistics().segments == 2, "one that nobody uses makes room"
    assert [map_segment(cluster, segment)[0] for segment in (second, large)] == [2, 4]
    pool.release(large.name)
    pool.close()


def test_few_of_the_segments_that_are_read_are_tried(
    pool: SegmentPool, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = []
    for number in range(30):
        segment = write(pool, filled(number))
        views.append(map_segment(cluster, segment))
        pool.release(segment.name)
    tried: list[int] = []

    def try_lock(fd: int, kind: int = 0) -> bool:
        tried.append(fd)
        return False

    with monkeypatch.context() as patch:
        patch.setattr(shm, "_try_lock", try_lock)
        for _ in range(4):
            write(pool, filled(99))
    assert len(tried) == 4 * shm._LOOKS
    assert len(set(tried)) == 30, "each gets its turn"
    assert [view[0] for view in views] == list(range(30))


def test_a_closed_pool_leaves_what_is_lent_and_nothing_else(pool: SegmentPool, cluster: Path) -> None:
    lent, idle = write(pool, filled(5)), write(pool, filled(6))
    pool.release(idle.name)
    pool.close()
    assert pool.write(filled(1)) is None
    view = map_segment(cluster, lent)
    with pytest.raises(SegmentGone):
        map_segment(cluster, idle)
    assert shm.clear_pool(cluster, "writer", spare={lent.name})
    assert map_segment(cluster, lent)[0] == 5
    assert shm.clear_pool(cluster, "writer", spare=())
    assert view[0] == 5  # it is mapped
    assert not (cluster / "writer").exists()
    assert shm.clear_pool(cluster, "writer", spare=()), "nothing is left to be cleared"


def test_a_pool_whose_owner_lives_is_not_cleared(pool: SegmentPool, cluster: Path) -> None:
    segment = write(pool, filled(5))
    assert not shm.clear_pool(cluster, "writer", spare=())
    assert map_segment(cluster, segment)[0] == 5


def test_a_pool_without_lent_segments_goes_with_its_owner(pool: SegmentPool, cluster: Path) -> None:
    pool.release(write(pool, filled(5)).name)
    pool.close()
    assert not (cluster / "writer").exists()


@pytest.mark.parametrize(
    "name", ["", "writer", "../secret/1.0", "writer/../x", "/etc/passwd", ".owner/1", "writer/.owner"]
)
def test_names_stay_inside_the_cluster(cluster: Path, pool: SegmentPool, name: str) -> None:
    with pytest.raises(SegmentGone):
        map_segment(cluster, Segment(name, 1))


def test_a_segment_shorter_than_it_says_is_not_mapped(pool: SegmentPool, cluster: Path) -> None:
    segment = write(pool, filled(1))
    with pytest.raises(SegmentGone):
        map_segment(cluster, Segment(segment.name, 1 << 40))


def test_capacities_waste_an_eighth_at_most() -> None:
    for size in (1, 262_144, 262_145, 700_000, MIB, MIB + 1, 100_000_000, 128 << 20):
        capacity = shm.round_up(size)
        assert size <= capacity <= max(shm.SMALLEST_BYTES, size + size // 8 + shm.SMALLEST_BYTES // 8)


_READER = """
import sys
from pathlib import Path
from enginery.transport.shared_memory import Segment, map_segment
view = map_segment(Path(sys.argv[1]), Segment(sys.argv[2], int(sys.argv[3])))
print(view[0], flush=True)
sys.stdin.read()
"""
_WRITER = """
import sys
from pathlib import Path
from enginery.transport.shared_memory import SegmentPool
pool = SegmentPool.open(Path(sys.argv[1]), "other", limit_bytes=1 << 26)
print(pool.write(memoryview(bytes([4]) * (1 << 20))).name, flush=True)
sys.stdin.read()
"""


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)


def test_a_killed_reader_counts_no_longer(pool: SegmentPool, cluster: Path) -> None:
    segment = write(pool, filled(3))
    reader = start(_READER, cluster, segment.name, segment.size_bytes)
    assert reader.stdout is not None
    assert reader.stdout.readline() == "3\n"
    pool.release(segment.name)
    write(pool, filled(4))
    assert pool.statistics().segments == 2, "it was used again under a reader"
    kill(reader)
    write(pool, filled(5))
    assert pool.statistics().segments == 2


def test_what_a_killed_writer_leaves_is_found_and_removed(cluster: Path) -> None:
    writer = start(_WRITER, cluster)
    assert writer.stdout is not None
    name = writer.stdout.readline().strip()
    assert not shm.is_abandoned(cluster / "other")
    kill(writer)
    assert shm.is_abandoned(cluster / "other")
    view = map_segment(cluster, Segment(name, MIB))
    assert shm.sweep(cluster) == [cluster / "other"]
    assert view[0] == 4
    assert not (cluster / "other").exists()


def test_sweeping_spares_the_living(cluster: Path, pool: SegmentPool) -> None:
    assert shm.sweep(cluster) == []
    assert (cluster / "writer").is_dir()


def test_a_directory_without_an_owner_is_spared_while_it_may_be_in_the_making(
    cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cluster / "half").mkdir(mode=0o700)
    assert shm.sweep(cluster) == []
    monkeypatch.setattr(shm, "INCOMPLETE_S", -1.0)
    assert shm.sweep(cluster) == [cluster / "half"]
    assert not (cluster / "half").exists()
    assert not shm.is_abandoned(cluster / "nothing")


def test_an_owner_is_seen_from_the_first_moment(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clusters that start at a time sweep away what has ended, and not each other."""
    swept: list[Path] = []
    take = shm.fcntl.flock

    def look_before(fd: int, kind: int) -> None:
        if not swept:
            swept.append(cluster)
            assert shm.sweep(cluster) == []
        take(fd, kind)

    monkeypatch.setattr(shm.fcntl, "flock", look_before)
    directory = shm.SharedDirectory.make(cluster / "other")
    assert swept
    assert not shm.is_abandoned(directory.path)
    directory.close()
    assert list(cluster.iterdir()) == [cluster / ".owner"]


def test_who_makes_a_file_while_all_is_removed_leaves_nothing(
    cluster: Path, pool: SegmentPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_tree = shm.shutil.rmtree
    written: list[Segment | None] = []

    def remove_and_write(path: Path, *, ignore_errors: bool) -> None:
        written.append(pool.write(filled(1)))
        remove_tree(path, ignore_errors=ignore_errors)
        written.append(pool.write(filled(1)))

    monkeypatch.setattr(shm.shutil, "rmtree", remove_and_write)
    shm.remove(cluster)
    assert written == [None, None]
    assert list(cluster.parent.iterdir()) == []
    shm.remove(cluster)


def test_directories_that_others_can_enter_are_not_private(cluster: Path) -> None:
    assert shm.is_private(cluster)
    cluster.chmod(0o755)
    assert not shm.is_private(cluster)
    assert not shm.is_private(cluster / "nothing")


def test_bytes_never_change_under_a_reader(pool: SegmentPool, cluster: Path) -> None:
    """Readers in threads keep views for a while; the writer uses segments again as fast as it can."""
    rng = random.Random(1)
    views: list[tuple[int, memoryview]] = []
    failures: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            for byte, view in views[:]:
                if view[0] != byte or view[len(view) // 2] != byte or view[-1] != byte:
                    failures.append(f"{byte} became {view[0]}")
                    return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(400):
            byte = number % 251
            segment = write(pool, filled(byte, rng.choice([1, 300_000, 600_000])))
            if rng.random() < 0.5:
                views.append((byte, map_segment(cluster, segment)))
            pool.release(segment.name)
            if len(views) > 12:
                del views[rng.randrange(len(views))]
    finally:
        stop.set()
        reader.join(timeout=30)
    assert failures == []
    assert pool.statistics().segments < 40, "nothing was used again"
