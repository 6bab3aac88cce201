"""The streams of an engine: what is written to them, what is nobody's, and that nobody can type anything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from enginery.engine.output import Ending, OutputCollector, Piece
from enginery.engine.streams import NoInput, TaskStream
from enginery.ids import TaskId

FIRST, SECOND = TaskId(1), TaskId(2)


@pytest.fixture
def collector() -> OutputCollector:
    return OutputCollector(lambda: None)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_text_that_utf_8_cannot_say_is_written_out(
    collector: OutputCollector, stream: str, pipe: tuple[int, int]
) -> None:
    reading, writing = pipe
    out = TaskStream(collector, stream, writing)
    assert out.write("log\udcff") == 4
    assert os.read(reading, 100) == b"log\\udcff"
    collector.begin(FIRST)
    print("x\udcff", file=out)
    print("\ud800 é", file=out, flush=True)
    ending = collector.end()
    assert ending.stdout + ending.stderr == "x\\udcff\n\\ud800 é\n"


def test_a_stream_is_no_terminal_and_cannot_be_closed(collector: OutputCollector) -> None:
    out = TaskStream(collector, "stdout", 1)
    out.close()
    assert not out.closed
    assert (out.name, out.encoding, out.errors) == ("<stdout>", "utf-8", "backslashreplace")
    assert (out.writable(), out.isatty(), out.fileno()) == (True, False, 1)
    assert repr(out) == "<TaskStream stdout>"
    with pytest.raises(TypeError, match=r"write\(\) argument must be str, not bytes"):
        out.write(b"bytes")  # type: ignore[arg-type]


def test_bytes_are_text_too(collector: OutputCollector) -> None:
    out = TaskStream(collector, "stdout", 1)
    collector.begin(FIRST)
    text = "é€😀".encode()
    for byte in text:
        assert out.buffer.write(bytes([byte])) == 1
    out.buffer.flush()
    out.buffer.close()
    assert out.buffer.write(memoryview(b"\xffx")) == 2
    assert collector.end() == Ending("é€😀\\xffx")


def test_half_a_letter_stays_with_its_task(collector: OutputCollector) -> None:
    out = TaskStream(collector, "stdout", 1)
    collector.begin(FIRST)
    out.buffer.write("é".encode()[:1])
    collector.end()
    collector.begin(SECOND)
    out.buffer.write("é".encode())
    assert collector.end() == Ending("é")
    assert collector.take() == [Piece(FIRST, "stdout", "\\xc3")]


def test_what_is_nobodys_goes_to_the_log(
    collector: OutputCollector, pipe: tuple[int, int], tmp_path: Path
) -> None:
    reading, writing = pipe
    out = TaskStream(collector, "stdout", writing)
    out.log_to(str(tmp_path / "log"))
    print("nobody's", file=out)
    assert out.fileno() == writing, "processes inherit the pipe"
    out.log_to("")
    assert (tmp_path / "log").read_text() == "nobody's\n"
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
    print("again", file=out)
    assert os.read(reading, 100) == b"again\n"


def test_in_a_forked_child_it_goes_to_the_descriptor(
    collector: OutputCollector, pipe: tuple[int, int], tmp_path: Path
) -> None:
    reading, writing = pipe
    out = TaskStream(collector, "stdout", writing)
    out.log_to(str(tmp_path / "log"))
    collector.begin(FIRST)
    pid = os.fork()
    if pid == 0:
        print("of the child", file=out)
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reading, 100) == b"of the child\n"
    out.log_to("")
    assert (tmp_path / "log").read_bytes() == b""


def test_reading_is_refused_by_name() -> None:
    nobody = NoInput()
    for read in (nobody.read, nobody.readline, nobody.readlines, nobody.buffer.read, lambda: next(nobody)):
        with pytest.raises(EOFError, match="a task has no standard input"):
            read()
    nobody.close()
    assert (nobody.closed, nobody.isatty(), nobody.readable(), nobody.fileno()) == (False, False, True, 0)
    assert (nobody.name, nobody.encoding, repr(nobody)) == ("<stdin>", "utf-8", "<NoInput>")
