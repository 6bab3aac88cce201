"""What tasks print: kept apart by task, whole, and taken from whoever writes, signal handlers included."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enginery.engine.output import (
    GATHER_S,
    RECORD_CONTENT_LIMIT,
    RECORD_TEXT_LIMIT,
    RESULT_TEXT_LIMIT,
    Ending,
    OutputCollector,
    Piece,
    Shown,
    Value,
    _Publish,
)
from enginery.engine.past_python import Found, PastPython
from enginery.engine.streams import TaskStream
from enginery.engine.threads import TaskRun, TaskThreads
from enginery.ids import TaskId
from enginery.transport.status_page import StatusPage, read_status_page

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
    assert collector.end() == Ending("ab", "x")
    assert collector.take() == []
    collector.begin(SECOND)
    assert collector.end() == Ending()


def test_between_tasks_nobody_takes_text(collector: OutputCollector) -> None:
    assert not collector.write("stdout", "nobody's")
    collector.begin(FIRST)
    assert collector.write("stdout", "mine")
    assert repr(collector) == "<OutputCollector of <TaskThreads of task 1>>"
    collector.end()
    assert not collector.write("stdout", "nobody's")


def test_what_gathers_while_a_task_runs_is_sent_and_counted(collector: OutputCollector, woken: Woken) -> None:
    collector.begin(FIRST)
    collector.write("stdout", "early")
    assert collector.take() == [Piece(FIRST, "stdout", "early", 1, 1)]
    collector.write("stderr", "late")
    assert woken.times == 2
    assert collector.end() == Ending(outputs=2)
    assert woken.times == 3
    assert collector.delay_s(sent_ago_s=0.0) == 0.0, "nothing comes behind it"
    assert collector.take() == [Piece(FIRST, "stderr", "late", 1, 2)]
    collector.begin(SECOND)
    assert collector.end() == Ending()


def test_long_texts_are_cut_and_sent_on_their_own(collector: OutputCollector) -> None:
    text = "é" * (2 * RECORD_TEXT_LIMIT + 5)
    assert len(text) > RESULT_TEXT_LIMIT
    collector.begin(FIRST)
    collector.write("stdout", text)
    collector.write("stderr", "w")
    assert collector.end() == Ending(outputs=4)
    pieces = collector.take()
    assert [(piece.task, piece.stream, len(piece.text)) for piece in pieces] == [
        (FIRST, "stdout", RECORD_TEXT_LIMIT),
        (FIRST, "stdout", RECORD_TEXT_LIMIT),
        (FIRST, "stdout", 5),
        (FIRST, "stderr", 1),
    ]
    assert "".join(piece.text for piece in pieces) == text + "w"


def test_each_attempt_at_a_task_counts_for_itself(collector: OutputCollector) -> None:
    collector.begin(FIRST, 1)
    collector.write("stdout", "a")
    collector.publish("x", b"1")
    collector.gather()
    assert collector.end() == Ending(outputs=2)
    collector.begin(FIRST, 2)
    collector.publish("x", b"2")
    collector.show("display_data", b"d")
    assert collector.end() == Ending(outputs=1)
    assert collector.take() == [
        Piece(FIRST, "stdout", "a", 1, 1),
        Piece(FIRST, "stdout", "", 1, 2),
        Value(FIRST, "x", b"2"),
        Shown(FIRST, "display_data", b"d", 0, True, 2, 1),
    ]


def test_the_end_waits_for_who_is_placing_what_was_said(collector: OutputCollector) -> None:
    """The count in the result is that of all that leaves, what the control thread has in hand included."""
    placing, go_on = threading.Event(), threading.Event()
    place = collector._place_text

    def place_slowly(run: TaskRun, stream: str, text: str, *, is_counted: bool = True) -> None:
        placing.set()
        assert go_on.wait(PATIENCE_S)
        place(run, stream, text, is_counted=is_counted)

    collector._place_text = place_slowly  # type: ignore[method-assign]
    collector.begin(FIRST)
    collector.write("stdout", "a")
    gathering = threading.Thread(target=collector.gather)
    gathering.start()
    assert placing.wait(PATIENCE_S)
    ended: list[Ending] = []
    ending = threading.Thread(target=lambda: ended.append(collector.end()))
    ending.start()
    assert ended == []
    go_on.set()
    for thread in (gathering, ending):
        thread.join(PATIENCE_S)
    assert ended == [Ending(outputs=1)]
    assert [piece.number for piece in collector.take() if isinstance(piece, Piece)] == [1]


# ---------------------------------------------------------------- after the end


def test_what_comes_after_the_end_of_its_task_is_still_its(collector: OutputCollector, woken: Woken) -> None:
    first = collector.begin(FIRST, 4)
    collector.end()
    collector.write_for(first, "stdout", "late")
    collector.begin(SECOND)
    collector.write("stdout", "mine")
    collector.write_for(first, "stdout", "later")
    assert woken.times == 1
    assert collector.end() == Ending("mine")
    collector.write_for(first, "stderr", "last")
    assert collector.take() == [
        Piece(FIRST, "stdout", "latelater", 4, 0),
        Piece(FIRST, "stderr", "last", 4, 0),
    ]
    assert collector.take() == []


def test_late_text_is_cut_and_changes_no_count(collector: OutputCollector) -> None:
    first = collector.begin(FIRST)
    collector.end()
    collector.begin(SECOND)
    collector.write("stdout", "a")
    collector.write_for(first, "stdout", "x" * (RECORD_TEXT_LIMIT + 1))
    collector.gather()
    collector.write("stdout", "b")
    assert collector.end() == Ending(outputs=2)
    pieces = [piece for piece in collector.take() if isinstance(piece, Piece)]
    assert [(piece.task, len(piece.text), piece.number) for piece in pieces] == [
        (FIRST, RECORD_TEXT_LIMIT, 0), (FIRST, 1, 0), (SECOND, 1, 1), (SECOND, 1, 2),
    ]  # fmt: skip


def test_a_value_that_was_noted_too_late_is_sent_all_the_same(collector: OutputCollector) -> None:
    """A thread was between two of its steps when its task ended."""
    first = collector.begin(FIRST)
    collector.end()
    collector._noted.append(_Publish(first, "x", b"1"))
    collector.begin(SECOND)
    assert collector.take() == [Value(FIRST, "x", b"1")]
    assert collector.end() == Ending()


# ---------------------------------------------------------------- past Python


class Past:
    """Finds what a test says was written."""

    def __init__(self) -> None:
        self.found: list[Found] = []
        self.asked: list[tuple[TaskRun, bool]] = []

    def look(self, run: TaskRun, *, is_over: bool = False) -> list[Found]:
        self.asked.append((run, is_over))
        found, self.found = self.found, []
        return found


class PastSite:
    def __init__(self) -> None:
        self.past = Past()
        past: PastPython = self.past  # type: ignore[assignment]
        self.collector = OutputCollector(lambda: None, past=past)


def test_a_mark_stands_where_python_goes_on() -> None:
    site = PastSite()
    run = site.collector.begin(FIRST)
    site.collector.write("stdout", "before")
    site.past.found = [Found("stderr", 7)]
    site.collector.write("stdout", "after")
    assert site.collector.end() == Ending(outputs=3)
    assert site.past.asked == [(run, False), (run, False), (run, True)]
    assert site.collector.take() == [
        Piece(FIRST, "stdout", "before", 1, 1),
        Piece(FIRST, "stderr", "", 1, 2, mark=7),
        Piece(FIRST, "stdout", "after", 1, 3),
    ]


def test_a_mark_stands_behind_all_that_a_task_has_written() -> None:
    site = PastSite()
    site.collector.begin(FIRST)
    site.past.found = [Found("stdout", 1), Found("stderr", 2)]
    assert site.collector.end() == Ending(outputs=2)
    site.collector.begin(SECOND)
    site.collector.write("stdout", "text")
    site.past.found = [Found("stdout", 3)]
    assert site.collector.end() == Ending(outputs=2), "what comes with the result would be shown last"
    assert [piece.mark for piece in site.collector.take() if isinstance(piece, Piece)] == [1, 2, 0, 3]


def test_who_gathers_while_a_task_ends_counts_all_of_it() -> None:
    site = PastSite()
    look = site.past.look

    def look_and_be_overtaken(run: TaskRun, *, is_over: bool = False) -> list[Found]:
        if is_over:
            site.collector.gather()
        return look(run, is_over=is_over)

    site.past.look = look_and_be_overtaken  # type: ignore[method-assign]
    site.collector.begin(FIRST)
    site.collector.write("stdout", "text")
    site.collector.publish("x", b"1")
    assert site.collector.end() == Ending(outputs=2)
    assert site.collector.take() == [
        Piece(FIRST, "stdout", "text", 1, 1),
        Value(FIRST, "x", b"1"),
        Piece(FIRST, "stdout", "", 1, 2),
    ]


def test_who_writes_for_an_earlier_task_makes_no_mark() -> None:
    site = PastSite()
    first = site.collector.begin(FIRST)
    site.collector.end()
    site.collector.begin(SECOND)
    before = len(site.past.asked)
    site.collector.write_for(first, "stdout", "late")
    assert len(site.past.asked) == before


# ---------------------------------------------------------------- last words


def test_pieces_say_how_far_the_last_words_have_come(tmp_path: Path) -> None:
    page = StatusPage.create(tmp_path / "page")
    collector = OutputCollector(lambda: None, last_words=page.last_words)
    first = collector.begin(FIRST, 2)
    collector.write("stdout", "a")
    collector.write("stderr", "x" * 1000)
    (one, other) = collector.take()
    assert isinstance(one, Piece)
    assert isinstance(other, Piece)
    assert (one.written, other.written) == (0, 6), "the last one has all of it"
    collector.end()
    collector.begin(SECOND)
    collector.write("stdout", "with the result\ud800")
    collector.write_for(first, "stdout", "late")
    assert collector.end().written == 8
    page.close()
    content = read_status_page(tmp_path / "page")
    assert content is not None
    assert [(word.task, word.attempt, word.stream, word.is_late) for word in content.words[-2:]] == [
        (SECOND, 1, 0, False), (FIRST, 2, 0, True),
    ]  # fmt: skip
    assert content.words[-2].text == "with the result\\ud800"


def test_a_forked_child_leaves_everything_to_its_descriptors() -> None:
    collector = OutputCollector(lambda: None)
    collector.begin(FIRST)
    pid = os.fork()
    if pid == 0:
        taken = collector.write("stdout", "a"), collector.show("d", b""), collector.publish("x", b"")
        os._exit(int(any(taken) or collector.is_open))
    assert os.waitpid(pid, 0)[1] == 0
    assert collector.is_open


# ---------------------------------------------------------------- values


def test_values_keep_their_place_among_the_texts(collector: OutputCollector, woken: Woken) -> None:
    collector.begin(FIRST)
    collector.write("stdout", "a")
    assert collector.publish("x", b"1")
    collector.write("stderr", "b")
    collector.write("stdout", "c")
    assert woken.times == 2
    assert collector.take() == [
        Piece(FIRST, "stdout", "a", 1, 1),
        Value(FIRST, "x", b"1"),
        Piece(FIRST, "stderr", "b", 1, 2),
        Piece(FIRST, "stdout", "c", 1, 3),
    ]
    assert collector.end() == Ending(outputs=3)


def test_values_do_not_gather_as_long_as_texts_do(collector: OutputCollector) -> None:
    collector.begin(FIRST)
    collector.write("stdout", "a")
    assert collector.delay_s(sent_ago_s=100.0) == GATHER_S
    collector.publish("x", b"1")
    assert collector.delay_s(sent_ago_s=100.0) == 0.0
    assert collector.delay_s(sent_ago_s=0.0) == GATHER_S, "a loop that publishes does not make a flood"
    collector.end()
    assert collector.delay_s(sent_ago_s=0.0) == 0.0, "after the last ones there is nothing to wait for"
    collector.take()
    collector.begin(SECOND)
    assert collector.delay_s(sent_ago_s=0.0) == GATHER_S


def test_the_last_value_of_a_name_counts(collector: OutputCollector) -> None:
    collector.begin(FIRST)
    for name, payload in (("x", b"1"), ("y", b"2"), ("x", b"3")):
        collector.publish(name, payload)
    assert collector.take() == [Value(FIRST, "y", b"2"), Value(FIRST, "x", b"3")]


def test_what_is_left_at_the_end_of_a_task_is_sent_apart(collector: OutputCollector, woken: Woken) -> None:
    collector.begin(FIRST)
    collector.publish("x", b"1")
    collector.write("stdout", "short")
    before = woken.times
    assert collector.end() == Ending(outputs=1)
    assert woken.times == before + 1
    collector.begin(SECOND)
    collector.publish("x", b"2")
    closing = Piece(FIRST, "stdout", "short", 1, 1)
    assert collector.take() == [Value(FIRST, "x", b"1"), closing, Value(SECOND, "x", b"2")]
    collector.end()
    assert not collector.publish("x", b"3"), "between tasks nobody takes values"


# ---------------------------------------------------------------- displays


def test_displays_keep_their_place_among_the_texts(collector: OutputCollector, woken: Woken) -> None:
    collector.begin(FIRST)
    assert collector.show("display_data", b"1")
    collector.write("stdout", "a")
    collector.show("clear_output", b"2")
    collector.publish("x", b"3")
    collector.write("stdout", "b")
    assert woken.times == 2, "for the first display, and for the value"
    assert collector.end() == Ending(outputs=4)
    assert collector.take() == [
        Shown(FIRST, "display_data", b"1", 0, True, 1, 1),
        Piece(FIRST, "stdout", "a", 1, 2),
        Shown(FIRST, "clear_output", b"2", 0, True, 1, 3),
        Value(FIRST, "x", b"3"),
        Piece(FIRST, "stdout", "b", 1, 4),
    ]


def test_big_displays_are_cut(collector: OutputCollector) -> None:
    content = bytes(range(256)) * (RECORD_CONTENT_LIMIT // 128)
    collector.begin(FIRST)
    for _ in range(2):
        collector.show("display_data", content)
    collector.show("display_data", content + b"!")
    pieces = collector.take()
    assert [(piece.offset, len(piece.content), piece.is_last) for piece in pieces] == [
        *[(0, RECORD_CONTENT_LIMIT, False), (RECORD_CONTENT_LIMIT, RECORD_CONTENT_LIMIT, True)] * 2,
        (0, RECORD_CONTENT_LIMIT, False),
        (RECORD_CONTENT_LIMIT, RECORD_CONTENT_LIMIT, False),
        (2 * RECORD_CONTENT_LIMIT, 1, True),
    ]
    assert b"".join(piece.content for piece in pieces) == content * 3 + b"!"


def test_a_display_at_the_end_of_a_task_is_sent(collector: OutputCollector, woken: Woken) -> None:
    collector.begin(FIRST)
    collector.show("display_data", b"1")
    collector.gather()
    collector.show("display_data", b"2")
    collector.end()
    assert woken.times == 3
    assert not collector.show("display_data", b"late"), "between tasks nobody takes displays"
    assert [piece.content for piece in collector.take()] == [b"1", b"2"]


# ---------------------------------------------------------------- threads


def test_a_thread_prints_for_its_own_task_and_never_for_another(woken: Woken) -> None:
    threads = TaskThreads()
    collector = OutputCollector(woken, threads)
    unfollow = threads.follow()
    turns, took = [threading.Event() for _ in range(3)], [threading.Event() for _ in range(3)]
    published: list[bool] = []

    def print_thrice() -> None:
        for number, (turn, done) in enumerate(zip(turns, took, strict=True)):
            assert turn.wait(PATIENCE_S)
            assert collector.write("stdout", str(number))
            assert collector.show("display_data", str(number).encode())
            published.append(collector.publish("x", b"1"))
            done.set()

    def let(number: int) -> None:
        turns[number].set()
        assert took[number].wait(PATIENCE_S)

    try:
        collector.begin(FIRST)
        thread = threading.Thread(target=print_thrice)
        thread.start()
        let(0)
        assert collector.end() == Ending(outputs=3)
        let(1)
        collector.begin(SECOND)
        let(2)
        collector.write("stdout", "mine")
        assert collector.end() == Ending("mine")
        thread.join(PATIENCE_S)
    finally:
        unfollow()
    assert published == [True, False, False]
    texts = [piece for piece in collector.take() if isinstance(piece, Piece)]
    assert [(piece.task, piece.text, piece.number) for piece in texts] == [
        (FIRST, "0", 1), (FIRST, "", 3), (FIRST, "1", 0), (FIRST, "2", 0),
    ]  # fmt: skip


# ---------------------------------------------------------------- writers in the middle of a reader


class Interrupted(deque[Any]):
    """Runs a handler in the middle of each step of whoever reads it."""

    handler: Callable[[], object] = staticmethod(lambda: None)

    def popleft(self) -> Any:
        piece = super().popleft()
        self.handler()
        return piece


@pytest.mark.parametrize("reader", ["take", "end"])
def test_a_handler_that_prints_in_the_middle_of_a_reader(collector: OutputCollector, reader: str) -> None:
    written = Interrupted()
    collector._noted = written
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
            stdout, _, outputs, _ = collector.end()
            taken += collector.take() if outputs else []
            mine = "".join(p.text for p in taken if p.stream == "stdout")
            assert mine + stdout == f"{number}\n"
            assert outputs == len(taken)
            taken.clear()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_what_is_written_beyond_a_bound_is_counted_and_left_out() -> None:
    collector = OutputCollector(lambda: None, held_limit=100)
    collector.begin(TaskId(7))
    for _ in range(30):
        collector.write("stdout", "x" * 10)
    texts = [piece.text for piece in collector.take() if isinstance(piece, Piece)]
    assert texts[0] == "x" * 110
    assert texts[1:] == [
        "\n[190 characters of this output were left out: it came faster than it could leave]\n"
    ]
    collector.write("stdout", "goes on")
    assert [piece.text for piece in collector.take() if isinstance(piece, Piece)] == ["goes on"]
