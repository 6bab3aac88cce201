"""The standard descriptors of an engine: what was written to them is marked, what is done to them undone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from enginery.engine import past_python
from enginery.engine.past_python import Found, PastPython
from enginery.engine.threads import TaskRun
from enginery.ids import EngineKey, TaskId
from enginery.protocol.marks import Mark, Marks
from enginery.transport.status_page import PageWatch, StatusPage

KEY = EngineKey("0123456789abcdef")
RUN, NEXT_RUN = TaskRun(TaskId(1), 2), TaskRun(TaskId(2), 1)


class Site:
    """Two pipes in the places of the standard descriptors, and their reader."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pipes = [os.pipe() for _ in range(2)]
        self.reading = [reading for reading, _ in pipes]
        self.numbers = [os.dup2(writing, 200 + place) for place, (_, writing) in enumerate(pipes)]
        for _, writing in pipes:
            os.close(writing)
        monkeypatch.setattr(past_python, "_NUMBERS", tuple(self.numbers))
        self.watch = PageWatch(path)
        self.page = StatusPage.create(path)
        self.past = PastPython(KEY, self.page)

    def write(self, stream: int, text: bytes) -> None:
        os.write(self.numbers[stream], text)

    def read(self, stream: int) -> list[tuple[bytes, Mark | None]]:
        meter = self.watch.meter(stream)
        meter.begin()
        data = os.read(self.reading[stream], 1 << 16)
        meter.end(len(data))
        return list(Marks(KEY).split(data))

    def close(self) -> None:
        self.past.close()
        self.page.close()
        self.watch.close()
        for descriptor in (*self.reading, *self.numbers):
            os.close(descriptor)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site(tmp_path / "page", monkeypatch)
    yield site
    site.close()


def test_nothing_is_marked_where_nothing_was_written(site: Site) -> None:
    assert not [*site.past.look(RUN), *site.past.look(RUN, is_over=True)]
    for descriptor in site.reading:
        os.set_blocking(descriptor, False)
        with pytest.raises(BlockingIOError):
            os.read(descriptor, 1)


@pytest.mark.parametrize("is_read", [True, False])
@pytest.mark.parametrize("is_over", [True, False])
def test_what_was_written_is_marked_once(site: Site, is_over: bool, is_read: bool) -> None:
    """Whether the supervisor has read it or not."""
    site.write(0, b"text")
    if is_read:
        assert site.read(0) == [(b"text", None)]
    assert site.past.look(RUN, is_over=is_over) == [Found("stdout", 1)]
    assert not site.past.look(RUN, is_over=is_over)
    text = b"" if is_read else b"text"
    assert site.read(0) == [(text, Mark(RUN.task, RUN.attempt, 1)), (b"", None)]
    assert not site.past.look(NEXT_RUN, is_over=is_over), "its own mark is nobody's text"


def test_streams_and_tasks_are_told_apart(site: Site) -> None:
    site.write(1, b"e")
    assert [found.stream for found in site.past.look(RUN)] == ["stderr"]
    site.write(0, b"a")
    site.write(1, b"f")
    assert site.past.look(NEXT_RUN) == [Found("stdout", 2), Found("stderr", 3)]
    assert site.read(1) == [(b"e", Mark(*RUN, 1)), (b"f", Mark(*NEXT_RUN, 3)), (b"", None)]


def test_while_the_supervisor_reads_for_long(site: Site) -> None:
    """One mark too many does no harm, and one that is missing does."""
    site.watch.meter(0).begin()
    assert site.past.look(RUN) == [Found("stdout", 1)]
    assert site.past.look(RUN) == [Found("stdout", 2)]
    site.watch.meter(0).end(0)
    assert site.past.look(NEXT_RUN) == [Found("stdout", 3)]
    assert not site.past.look(NEXT_RUN)


def test_a_supervisor_that_is_gone(site: Site) -> None:
    site.write(0, b"text")
    os.close(site.reading[0])
    site.reading[0] = os.dup(site.reading[1])
    assert not [*site.past.look(RUN), *site.past.look(RUN, is_over=True)]


# ---------------------------------------------------------------- undone


def test_closed_descriptors_are_put_back_at_the_end_of_a_task(site: Site) -> None:
    for number in site.numbers:
        os.close(number)
    assert not site.past.look(RUN)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(site.numbers[0])
    assert not site.past.look(RUN, is_over=True)
    site.write(0, b"a")
    site.write(1, b"b")
    assert [site.read(0), site.read(1)] == [[(b"a", None)], [(b"b", None)]]
    assert all(os.get_inheritable(number) for number in site.numbers)


def test_descriptors_that_were_swapped_are_put_back(site: Site) -> None:
    first, second = site.numbers
    spare = os.dup(first)
    os.dup2(second, first)
    os.dup2(spare, second)
    os.close(spare)
    site.past.look(RUN, is_over=True)
    site.write(0, b"a")
    assert site.read(0) == [(b"a", None)]


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY])
def test_replaced_descriptors_are_put_back(site: Site, tmp_path: Path, flags: int) -> None:
    file = os.open(tmp_path / "file", flags | os.O_CREAT)
    os.dup2(file, site.numbers[0])
    os.dup2(site.numbers[0], site.numbers[1])
    os.close(file)
    assert not site.past.look(RUN, is_over=True)
    site.write(0, b"a")
    site.write(1, b"b")
    assert [site.read(0), site.read(1)] == [[(b"a", None)], [(b"b", None)]]
    assert (tmp_path / "file").read_bytes() == b""


def test_a_file_that_happens_to_have_the_number_stays(site: Site, tmp_path: Path) -> None:
    number = site.numbers[0]
    file = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    os.dup2(file, number, inheritable=False)
    os.close(file)
    site.past.look(RUN, is_over=True)
    os.write(number, b"mine")
    assert (tmp_path / "file").read_bytes() == b"mine"
    os.close(number)
    site.past.look(RUN, is_over=True)
    site.write(0, b"a")
    assert site.read(0) == [(b"a", None)]


def test_it_is_closed_once(site: Site) -> None:
    site.past.close()
    site.past.close()
    assert not site.past.look(RUN, is_over=True)


# ---------------------------------------------------------------- buffers

KILLED = """
import ctypes, os, sys
from enginery.engine.past_python import unbuffer
unbuffer()
{write}
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(
    "write",
    [
        "ctypes.CDLL(None).printf(b'text')",
        "sys.__stdout__.write('text')",
        "sys.__stdout__.close(); sys.__stdout__.write('text')",
        "sys.__stdout__.buffer.write(b'text')",
    ],
)
def test_nothing_is_left_in_buffers(write: str) -> None:
    program = KILLED.format(write=write)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGKILL, b"text", b"")
