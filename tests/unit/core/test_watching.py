"""Who else wants to hear of a task, and what it would have missed."""

from __future__ import annotations

import pytest

from enginery.core import watching
from enginery.core.watching import Watching, saying_size
from enginery.ids import ClientId, EngineId, TaskId
from enginery.protocol.messages import Data, Output, Progress

ME, YOU = ClientId(1), ClientId(2)
TASK, OTHER = TaskId(1 << 32 | 1), TaskId(1 << 32 | 2)


def text(words: str, task: TaskId = TASK) -> Output:
    return Output(task, EngineId(0), "stdout", words)


def test_who_comes_late_misses_nothing() -> None:
    watching = Watching()
    for saying in (text("a"), Data(TASK, "x", b"1"), text("b"), Data(TASK, "x", b"2"), text("c", OTHER)):
        watching.on_said(saying)
        watching.check()
    assert watching.on_watched(ME, TASK)
    assert watching.said(TASK) == [text("a"), text("b"), Data(TASK, "x", b"2")]
    assert watching.said(TASK, 3) == [text("b"), Data(TASK, "x", b"2")]
    watching.on_said(text("d", OTHER))
    assert not watching.on_watched(ME, TASK), "asked again after a hello"
    assert watching.on_watched(YOU, OTHER)
    assert watching.said(OTHER) == [text("c", OTHER), text("d", OTHER)]
    assert sorted(watching.speakers()) == [TASK, OTHER]
    assert set(watching.watched(ME)) == {TASK}
    assert list(watching.watchers(TASK)) == [ME]
    watching.check()


def test_a_value_keeps_its_place_before_the_text_that_follows_it() -> None:
    watching = Watching()
    for saying in (Data(TASK, "x", b"1"), text("a"), Data(TASK, "x", b"2"), text("")):
        watching.on_said(saying)
    assert watching.said(TASK) == [text("a"), Data(TASK, "x", b"2"), text("")]
    watching.check()


def test_of_progress_the_last_is_kept() -> None:
    watching = Watching()
    how_far = Progress(TASK, EngineId(0), 1, 10, 5)
    for saying in (Progress(TASK, EngineId(0), 1, 10, 4), text("a"), Data(TASK, "", b"1"), how_far):
        watching.on_said(saying)
        watching.check()
    assert watching.said(TASK) == [text("a"), Data(TASK, "", b"1"), how_far]
    assert (watching.progress(TASK), watching.progress(OTHER)) == (how_far, None)
    watching.on_ended(TASK)
    assert watching.progress(TASK) is None


def test_an_end_is_told_once_and_late_text_still() -> None:
    watching = Watching()
    watching.on_said(text("a"))
    watching.on_watched(ME, TASK)
    watching.on_watched(YOU, TASK)
    assert list(watching.on_ended(TASK)) == [ME, YOU]
    assert list(watching.on_ended(TASK)) == []
    assert list(watching.watchers(TASK)) == [ME, YOU]
    watching.check()
    assert repr(watching) == "<Watching: 0 tasks watched, 0 bytes said>"


def test_a_client_that_leaves_watches_no_longer() -> None:
    watching = Watching()
    watching.on_watched(ME, TASK)
    watching.on_watched(YOU, TASK)
    watching.on_watched(ME, OTHER)
    watching.on_client_gone(ME)
    watching.check()
    assert list(watching.watchers(TASK)) == [YOU]
    assert list(watching.on_ended(OTHER)) == []


def test_what_is_kept_is_bounded_for_each_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "KEPT_BYTES_OF_ONE", 3 * saying_size(text("x" * 10)))
    kept = Watching()
    for letter in "abcde":
        kept.on_said(text(letter * 10))
        kept.check()
    assert kept.said(TASK) == [text(letter * 10) for letter in "cde"]


def test_what_is_kept_is_bounded_for_all_tasks() -> None:
    kept = Watching(kept_bytes=2 * saying_size(text("x" * 10)))
    for number in (1, 2, 1, 3):
        kept.on_said(text("x" * 10, TaskId(number)))
        kept.check()
    assert [len(kept.said(TaskId(number))) for number in (1, 2, 3)] == [0, 0, 1]
