"""What tasks say and what is written past Python: in one order, whoever comes first, and nothing lost."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginery.core.voices import (
    DEPARTED_KEPT,
    MARK_WAIT_S,
    OPEN_TASKS_KEPT,
    TEXT_WAIT_S,
    Departed,
    Place,
    Voices,
)
from enginery.core.watching import Saying
from enginery.ids import EngineId, EngineKey, HostKey, TaskId
from enginery.protocol.messages import Data, Display, LastWord, Output, ProcessText

KEY, HOST = EngineKey("e0"), HostKey("h0")
ENGINE, TASK = EngineId(0), TaskId(1)


class Site:
    """Voices, and what they have passed on."""

    def __init__(self) -> None:
        self.voices = Voices()
        self.now = 100.0
        self.passed: list[Saying] = []
        self.texts = 0

    def pass_on(self, saying: Saying) -> None:
        self.passed.append(saying)

    def say(self, text: str, number: int, *, task: TaskId = TASK, written: int = 0) -> None:
        saying = Output(task, ENGINE, "stdout", text, 1, number)
        self.voices.on_said(ENGINE, saying, written=written, now=self.now, outbox=self)
        self.voices.check()

    def mark(self, mark: int, number: int, *, stream: str = "stdout", attempt: int = 1) -> None:
        saying = Output(TASK, ENGINE, stream, "", attempt, number)
        place = Place(stream, attempt, mark)
        self.voices.on_said(ENGINE, saying, mark=place, now=self.now, outbox=self)
        self.voices.check()

    def write(
        self,
        text: str,
        mark: int = 0,
        *,
        stream: str = "stdout",
        attempt: int = 1,
        task: TaskId = TASK,
        lost: int = 0,
    ) -> None:
        self.texts += 1 + lost
        record = ProcessText(KEY, self.texts, task, stream, text, attempt if mark else 0, mark)
        self.voices.on_text(ENGINE, record, now=self.now, outbox=self)
        self.voices.check()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.voices.on_tick(now=self.now, outbox=self)
        self.voices.check()

    def gone(self) -> None:
        departed = Departed(ENGINE, HOST, frozenset({TASK}))
        self.voices.on_engine_gone(ENGINE, KEY, departed, outbox=self)
        self.voices.check()

    def heard(self) -> list[tuple[str, int]]:
        """What was passed on since it was asked last: text and number."""
        passed, self.passed = self.passed, []
        return [(saying.text, saying.number) for saying in passed if isinstance(saying, Output)]


@pytest.fixture
def site() -> Site:
    return Site()


# ---------------------------------------------------------------- order


def test_who_writes_nothing_past_python_is_passed_on_at_once(site: Site) -> None:
    site.say("a", 1)
    display, data = Display(TASK, ENGINE, "display_data", b"d", number=2), Data(TASK, "x", b"1")
    for saying in (display, data):
        site.voices.on_said(ENGINE, saying, now=site.now, outbox=site)
    assert site.passed == [Output(TASK, ENGINE, "stdout", "a", 1, 1), display, data]
    assert site.voices.next_deadline() is None
    assert repr(site.voices) == "<Voices, 0 tasks open>"


def test_a_mark_waits_for_the_text_before_it(site: Site) -> None:
    site.say("before", 1)
    site.mark(1, 2)
    site.say("after", 3)
    assert site.heard() == [("before", 1)]
    site.write("past python", 1)
    assert site.heard() == [("past python", 2), ("after", 3)]
    assert site.voices.next_deadline() is None


def test_text_waits_for_what_was_said_before_it(site: Site) -> None:
    site.write("past python", 1)
    assert site.heard() == []
    site.say("before", 1)
    site.mark(1, 2)
    assert site.heard() == [("before", 1), ("past python", 2)]
    assert site.voices.next_deadline() is None


def test_text_of_a_task_that_runs_on_does_not_wait_for_long(site: Site) -> None:
    site.write("a")
    assert site.voices.next_deadline() == site.now + TEXT_WAIT_S
    site.wait(TEXT_WAIT_S / 2)
    site.say("before", 1)
    site.write("b")
    site.wait(TEXT_WAIT_S / 2)
    assert site.heard() == [("before", 1), ("a", 0), ("b", 0)]
    site.mark(1, 2)
    site.write("c", 1)
    assert site.heard() == [("c", 2)]


def test_a_mark_whose_text_has_been_shown_is_passed_on_without(site: Site) -> None:
    site.write("a", 1)
    site.wait(TEXT_WAIT_S)
    assert site.heard() == [("a", 0)]
    site.mark(1, 1)
    assert site.heard() == [("", 1)]
    assert site.voices.next_deadline() is None


def test_of_several_texts_before_a_mark_the_last_one_has_the_number(site: Site) -> None:
    for text, mark in (("a", 0), ("b", 0), ("c", 1)):
        site.write(text, mark)
    site.mark(1, 1)
    assert site.heard() == [("a", 0), ("b", 0), ("c", 1)]


def test_each_stream_has_its_marks(site: Site) -> None:
    site.write("out", 1)
    site.write("err", 2, stream="stderr")
    site.mark(2, 1, stream="stderr")
    assert site.heard() == [("err", 1)]
    site.mark(1, 2)
    assert site.heard() == [("out", 2)]


def test_marks_of_an_earlier_attempt(site: Site) -> None:
    site.write("first", 1, attempt=1)
    site.write("second", 1, attempt=2)
    site.mark(1, 1, attempt=1)
    site.mark(1, 1, attempt=2)
    assert site.heard() == [("first", 1), ("second", 1)]


def test_marks_that_two_threads_have_swapped(site: Site) -> None:
    site.mark(1, 1)
    site.mark(2, 2)
    site.write("a", 2)
    assert site.heard() == [("a", 1), ("", 2)]
    site.write("b", 1)
    site.wait(TEXT_WAIT_S)
    assert site.heard() == [("b", 0)]


def test_tasks_do_not_wait_for_each_other(site: Site) -> None:
    site.mark(1, 1)
    site.say("other", 1, task=TaskId(2))
    site.write("other's", task=TaskId(3))
    assert site.heard() == [("other", 1)]
    site.write("", 1)
    assert site.heard() == [("", 1)]


# ---------------------------------------------------------------- waits end


def test_a_mark_that_never_comes(site: Site) -> None:
    site.mark(1, 1)
    site.say("after", 2)
    site.mark(2, 3)
    site.say("last", 4)
    assert site.voices.next_deadline() == site.now + MARK_WAIT_S
    site.wait(MARK_WAIT_S)
    assert site.heard() == [("", 1), ("after", 2)]
    site.wait(MARK_WAIT_S)
    assert site.heard() == [("", 3), ("last", 4)]
    site.write("late", 1)
    site.wait(TEXT_WAIT_S)
    assert site.heard() == [("late", 0)]


def test_texts_that_were_lost_are_counted_and_nothing_waits_for_them(site: Site) -> None:
    site.write("a", 1)
    site.mark(1, 1)
    site.mark(2, 2)
    site.say("b", 3)
    site.heard()
    site.write("c", lost=2)
    sentence = "[2 pieces of what was written past Python did not arrive here]\n"
    assert site.heard() == [("", 2), ("b", 3), (sentence, 0)]
    site.wait(TEXT_WAIT_S)
    assert site.heard() == [("c", 0)]


def test_a_text_that_comes_twice_is_taken_once(site: Site) -> None:
    site.write("a")
    site.texts -= 1
    site.write("a")
    site.wait(TEXT_WAIT_S)
    assert site.heard() == [("a", 0)]


def test_the_end_of_an_engine_ends_all_waits(site: Site) -> None:
    site.mark(1, 1)
    site.say("b", 2)
    site.write("c", stream="stderr")
    site.gone()
    assert site.heard() == [("", 1), ("b", 2), ("c", 0)]
    assert site.voices.next_deadline() is None


def test_the_oldest_of_too_many_is_settled(site: Site) -> None:
    for number in range(OPEN_TASKS_KEPT + 1):
        site.write(str(number), task=TaskId(1 + number))
    assert site.heard() == [("0", 0)]


# ---------------------------------------------------------------- engines that have left


def test_text_that_comes_after_its_engine_has_left(site: Site) -> None:
    site.gone()
    record = ProcessText(KEY, 7, TASK, "stderr", "late", 1, 1)
    site.voices.on_late_text(HostKey("h1"), record, outbox=site)
    site.voices.on_late_text(HOST, ProcessText(KEY, 7, TaskId(9), "stderr", "x"), outbox=site)
    assert site.passed == []
    site.voices.on_late_text(HOST, record, outbox=site)
    assert site.passed == [Output(TASK, ENGINE, "stderr", "late", 1, 0)]


def test_departed_engines_are_forgotten(site: Site) -> None:
    site.gone()
    for number in range(DEPARTED_KEPT):
        departed = Departed(ENGINE, HOST, frozenset())
        site.voices.on_engine_gone(ENGINE, EngineKey(f"x{number}"), departed, outbox=site)
    site.voices.on_late_text(HOST, ProcessText(KEY, 7, TASK, "stderr", "late"), outbox=site)
    assert site.passed == []


# ---------------------------------------------------------------- last words


def word(number: int, text: str, *, task: TaskId = TASK, mark: int = 0) -> LastWord:
    return LastWord(number, task, 1, "stdout", False, mark, text)


def test_last_words_that_have_not_come_before(site: Site) -> None:
    site.say("12", 1, written=2)
    words = [word(2, "2"), word(3, "3"), word(4, "4", task=TaskId(2)), word(5, "5")]
    site.voices.on_last_words(
        ENGINE, words, is_wanted=lambda word: word.task == TASK, now=site.now, outbox=site
    )
    assert site.heard() == [("12", 1), ("3", 0), ("5", 0)]


@pytest.mark.parametrize("result", [0, 7, 8])
def test_words_that_are_no_longer_there_are_counted(site: Site, result: int) -> None:
    site.say("12", 1, written=2)
    site.voices.on_result(ENGINE, result)
    site.voices.on_last_words(
        ENGINE, [word(9, "9"), word(10, "10")], is_wanted=bool, now=site.now, outbox=site
    )
    lost = {0: "6 writes", 7: "1 write", 8: ""}[result]
    sentence = [(f"[{lost} before this did not leave the engine before it died]\n", 0)] if lost else []
    assert site.heard() == [("12", 1), *sentence, ("9", 0), ("10", 0)]


def test_last_words_keep_their_places_among_texts(site: Site) -> None:
    site.write("past", 1)
    site.write("trace", stream="stderr")
    words = [word(1, "before"), word(2, "", mark=1), word(3, "after")]
    site.voices.on_last_words(ENGINE, words, is_wanted=bool, now=site.now, outbox=site)
    site.gone()
    assert site.heard() == [("before", 0), ("past", 0), ("after", 0), ("trace", 0)]


# ---------------------------------------------------------------- any order


@given(st.data())
def test_two_connections_in_any_interleaving(data: st.DataObject) -> None:
    """The task writes by turns in Python and past it; both sides come in order, mixed in any way."""
    turns = data.draw(st.integers(1, 4))
    said: list[tuple[str, int]] = []  # text and mark, of the sayings
    written: list[tuple[str, int]] = []
    expected = ""
    for turn in range(1, turns + 1):
        said += [(f"p{turn} ", 0), ("", turn)]
        written += [(f"w{turn} ", 0), (f"v{turn} ", turn)]
        expected += f"p{turn} w{turn} v{turn} "
    site = Site()
    numbers = itertools.count(1)
    while said or written:
        if said and (not written or data.draw(st.booleans())):
            text, mark = said.pop(0)
            if mark:
                site.mark(mark, next(numbers))
            else:
                site.say(text, next(numbers))
        else:
            text, mark = written.pop(0)
            site.write(text, mark)
    heard = site.heard()
    assert "".join(text for text, _ in heard) == expected
    assert [number for _, number in heard if number] == list(range(1, 2 * turns + 1))
    assert site.voices.next_deadline() is None
