"""What tasks print: kept apart by task, whole, and taken from whoever writes, signal handlers included."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator

import pytest

from enginery.engine.output import RECORD_TEXT_LIMIT, RESULT_TEXT_LIMIT, OutputCollector, Piece, TaskStream
from enginery.ids import TaskId

FIRST, SECOND = TaskId(1), TaskId(2)
PATIENCE_S = 10.0


class Woken:
    """Counts how often the control thread would have been woken."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


@pytest.fixture
def woken() -> Woken:
    return Woken()


@pytest.fixture
def collector(woken: Woken) -> OutputCollector:
    return OutputCollector(woken)


def test_short_texts_go_with_the_result(collector: OutputCollector, woken: Woken) -> None:
    collector.begin(FIRST)
    for stream, text in (("stdout", "a"), ("stderr", "x"), ("stdout", "b")):
        assert collector.write(stream, text)
    assert woken.times == 1, "the first text says that there is something to gather"
    assert collector.end() == ("ab", "x", 0)
    assert collector.take() == []
    collector.begin(SECOND)
    assert collector.end() == ("", "", 0)


def test_between_tasks_nobody_takes_text(collector: OutputCollector) -> None:
    assert not collector.write("stdout", "nobody's")
    collector.begin(FIRST)
    assert collector.write("stdout", "mine")
    assert repr(collector) == "<OutputCollector of task 1>"
    collector.end()
    assert not collector.write("stdout", "nobody's")


def test_what_gathers_while_a_task_runs_is_sent_and_counted(collector: OutputCollector, woken: Woken) -> None:
    collector.begin(FIRST)
    collector.write("stdout", "early")
    assert collector.take() == [Piece(FIRST, "stdout", "early")]
    collector.write("stderr", "late")
    assert woken.times == 2
    assert collector.end() == ("", "late", 1)
    collector.begin(SECOND)
    assert collector.end() == ("", "", 0)


def test_long_texts_are_cut_and_sent_on_their_own(collector: OutputCollector) -> None:
    text = "é" * (2 * RECORD_TEXT_LIMIT + 5)
    assert len(text) > RESULT_TEXT_LIMIT
    collector.begin(FIRST)
    collector.write("stdout", text)
    collector.write("stderr", "w")
    assert collector.end() == ("", "", 4)
    pieces = collector.take()
    assert [(piece.task, piece.stream, len(piece.text)) for piece in pieces] == [
        (FIRST, "stdout", RECORD_TEXT_LIMIT),
        (FIRST, "stdout", RECORD_TEXT_LIMIT),
        (FIRST, "stdout", 5),
        (FIRST, "stderr", 1),
    ]
    assert "".join(piece.text for piece in pieces) == text + "w"


def test_a_straggler_of_an_earlier_task_is_nobodys(collector: OutputCollector) -> None:
    collector.begin(SECOND)
    collector._written.append(Piece(FIRST, "stdout", "too late"))  # a thread was between two of its steps
    collector.write("stdout", "mine")
    assert collector.end() == ("mine", "", 0)


# ---------------------------------------------------------------- the streams


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
    assert collector.take() == [Piece(FIRST, stream, "x\\udcff\n")]
    print("\ud800 é", file=out, flush=True)
    stdout, stderr, outputs = collector.end()
    assert (stdout + stderr, outputs) == ("\\ud800 é\n", 1)


def test_a_stream_is_no_terminal_and_cannot_be_closed(collector: OutputCollector) -> None:
    out = TaskStream(collector, "stdout", 1)
    out.close()
    assert not out.closed
    assert (out.name, out.encoding, out.errors) == ("<stdout>", "utf-8", "backslashreplace")
    assert (out.writable(), out.isatty(), out.fileno()) == (True, False, 1)
    assert repr(out) == "<TaskStream stdout>"
    with pytest.raises(TypeError, match=r"write\(\) argument must be str, not bytes"):
        out.write(b"bytes")  # type: ignore[arg-type]


# ---------------------------------------------------------------- writers in the middle of a reader


class Interrupted(deque[Piece]):
    """Runs a handler in the middle of each step of whoever reads it."""

    handler: Callable[[], object] = staticmethod(lambda: None)

    def popleft(self) -> Piece:
        piece = super().popleft()
        self.handler()
        return piece


@pytest.mark.parametrize("reader", ["take", "end"])
def test_a_handler_that_prints_in_the_middle_of_a_reader(collector: OutputCollector, reader: str) -> None:
    written = Interrupted()
    collector._written = written
    collector.begin(FIRST)
    collector.write("stdout", "text")
    left = ["3", "2", "1"]

    def handler() -> None:
        if left:
            collector.write("stderr", left.pop())

    written.handler = handler  # type: ignore[method-assign]
    done = threading.Event()

    def read() -> None:
        getattr(collector, reader)()
        done.set()

    thread = threading.Thread(target=read, daemon=True)  # it must not hang the run if it waits for itself
    thread.start()
    assert done.wait(PATIENCE_S), "it waits for a lock that it holds"
    thread.join(PATIENCE_S)
    assert len(left) < 3, "the handler has come in between"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers here")
def test_many_signals_whose_handler_prints(collector: OutputCollector) -> None:
    """All that a task writes itself comes out, whenever the handler comes in between."""
    out = TaskStream(collector, "stdout", sys.__stderr__.fileno() if sys.__stderr__ else 2)
    handled = 0

    def handler(signum: int, frame: object) -> None:
        nonlocal handled
        handled += 1
        collector.write("stderr", "signal\n")

    before = signal.signal(signal.SIGALRM, handler)
    taken: list[Piece] = []
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        number = 0
        while handled < 500:
            number += 1
            collector.begin(TaskId(number))
            out.write(f"{number}\n")
            if number % 7 == 0:
                taken += collector.take()
            stdout, _, outputs = collector.end()
            mine = "".join(p.text for p in taken if p.stream == "stdout")
            assert mine + stdout == f"{number}\n"
            assert outputs == len(taken)
            taken.clear()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
