"""The ready line passes once, and what it says is understood."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from enginery.host.ready import ReadyLine
from enginery.host.starters import Gate
from enginery.protocol.specs import Ready
from enginery.transport.channel import NO_FILE


class Line:
    def __init__(self) -> None:
        self.waiting_fd, write_fd = os.pipe()
        self.ready = ReadyLine(write_fd)
        self.controller_fd = self.ready.open()


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.ready.close()
    os.close(line.waiting_fd)
    os.close(line.controller_fd)


def test_a_line_in_pieces(line: Line) -> None:
    assert not line.ready.receive()
    os.write(line.controller_fd, b"{")
    assert not line.ready.receive()
    os.write(line.controller_fd, b"}\n")
    assert line.ready.receive()
    assert line.ready.passed
    assert line.ready.fileno() == NO_FILE
    line.ready.say(Ready(error="too late"))
    assert os.read(line.waiting_fd, 100) == b"{}\n"
    assert os.read(line.waiting_fd, 100) == b""


@pytest.mark.parametrize("text", [b'{"error":"the port is taken"}\n', b"nonsense\n", b"\xff\n"])
def test_a_failure_passes_and_is_none_of_success(line: Line, text: bytes) -> None:
    os.write(line.controller_fd, text)
    assert not line.ready.receive()
    assert line.ready.passed
    assert os.read(line.waiting_fd, 100) == text


def test_saying_it_ourselves(line: Line) -> None:
    line.ready.say(Ready(error="it died"))
    assert os.read(line.waiting_fd, 100) == b'{"error":"it died"}\n'
    assert repr(line.ready) == "<ReadyLine passed>"


def test_nobody_waits() -> None:
    ready = ReadyLine(NO_FILE)
    ready.say(Ready())
    assert ready.passed


def test_whoever_waited_has_gone() -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    ready = ReadyLine(write_fd)
    ready.say(Ready())
    assert ready.passed
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(write_fd)


def test_a_gate_opens_for_who_waits() -> None:
    gate = Gate()
    assert not gate.is_open
    gate.open()
    gate.open()
    assert gate.is_open
    gate.pass_through()
