"""Text from the pipes of engines: whose it is, in records, within bounds."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from enginery.core.capture import BURST_BYTES, GATHER_S, MARK_GATHER_S, NOBODY, TEXT_LIMIT, Capture
from enginery.ids import EngineKey, TaskId
from enginery.protocol.marks import Mark, Marks

KEY = EngineKey("0123456789abcdef")
FIRST, SECOND = TaskId(1), TaskId(2)


class Said(NamedTuple):
    task: TaskId
    text: str
    mark: int = 0
    attempt: int = 0
    stream: str = "stdout"


class Site:
    """One engine's pipes; what is taken from them, in short."""

    def __init__(self, **limits: int) -> None:
        self.now = 10.0
        self.capture = Capture(**limits)
        self.capture.on_started(KEY, now=self.now)
        self.numbers: list[int] = []

    def read(self, data: bytes, newest: TaskId = FIRST, stream: str = "stdout") -> bytes:
        clean = self.capture.on_read(KEY, stream, data, newest, now=self.now)
        self.capture.check()
        return clean

    def empty(self, newest: TaskId = FIRST, stream: str = "stdout") -> bytes:
        clean = self.capture.on_empty(KEY, stream, newest, now=self.now)
        self.capture.check()
        return clean

    def taken(self) -> list[Said]:
        texts = self.capture.take(now=self.now)
        self.capture.check()
        self.numbers += [text.number for text in texts]
        assert all(text.key == KEY for text in texts)
        return [Said(text.task, text.text, text.mark, text.attempt, text.stream) for text in texts]


@pytest.fixture
def site() -> Site:
    return Site()


def mark(task: TaskId, number: int = 1, attempt: int = 1) -> bytes:
    return Marks(KEY).encode(Mark(task, attempt, number))


def test_text_is_of_the_task_that_the_mark_behind_it_names(site: Site) -> None:
    clean = site.read(b"a" + mark(FIRST) + b"b" + mark(SECOND, attempt=2), newest=SECOND)
    assert clean == b"ab"
    assert site.taken() == [Said(FIRST, "a", 1, 1), Said(SECOND, "b", 1, 2)]
    site.empty(SECOND)
    assert site.taken() == []


def test_without_a_mark_it_is_of_the_newest_task_at_the_next_look(site: Site) -> None:
    site.read(b"a")
    assert site.taken() == [], "nobody knows yet"
    site.read(b"b", FIRST)
    assert site.taken() == [Said(FIRST, "a")]
    site.empty(SECOND)
    assert site.taken() == [Said(SECOND, "b")]


def test_a_mark_that_comes_with_the_next_look_says_better(site: Site) -> None:
    """The task has ended, and the page names the next one already."""
    site.read(b"a")
    site.read(b"b" + mark(FIRST) + b"c", newest=SECOND)
    assert site.taken() == [Said(FIRST, "ab", 1, 1)]
    site.empty(SECOND)
    assert site.taken() == [Said(SECOND, "c")]


def test_a_mark_without_text_is_passed_on(site: Site) -> None:
    site.read(b"a")
    site.empty()
    assert site.taken() == [Said(FIRST, "a")]
    site.read(mark(FIRST))
    assert site.taken() == [Said(FIRST, "", 1, 1)]


def test_before_the_first_task_it_is_nobodys(site: Site) -> None:
    assert site.read(b"import noise", NOBODY) == b"import noise"
    site.empty(NOBODY)
    assert site.taken() == []
    assert site.capture.next_deadline() is None


def test_marks_and_letters_that_are_cut(site: Site) -> None:
    data = "aé".encode() + mark(FIRST) + "€".encode()
    clean = b"".join(site.read(bytes([byte])) for byte in data)
    clean += site.empty(SECOND)
    assert clean == "aé€".encode()
    assert site.taken() == [
        Said(FIRST, "a"), Said(FIRST, "é"), Said(FIRST, "", 1, 1), Said(SECOND, "€"),
    ]  # fmt: skip


def test_half_a_letter_ends_with_its_task(site: Site) -> None:
    site.read("é".encode()[:1] + mark(FIRST) + b"b")
    site.empty(SECOND)
    assert site.taken() == [Said(FIRST, "\\xc3", 1, 1), Said(SECOND, "b")]


def test_what_only_begins_as_a_mark_is_text(site: Site) -> None:
    title = b"\x1b]"
    assert site.read(b"a" + title) + site.empty() == b"a" + title
    assert site.taken() == [Said(FIRST, "a\x1b]")]


def test_streams_are_apart(site: Site) -> None:
    site.read(b"a")
    site.read(b"b" + mark(FIRST), stream="stderr")
    site.empty()
    assert site.taken() == [Said(FIRST, "b", 1, 1, "stderr"), Said(FIRST, "a")]
    assert site.numbers == [1, 2]


def test_long_texts_are_cut_and_the_last_piece_has_the_mark(site: Site) -> None:
    text = "x" * (2 * TEXT_LIMIT + 1)
    site.read(text.encode() + mark(FIRST))
    said = site.taken()
    assert [(len(one.text), one.mark) for one in said] == [(TEXT_LIMIT, 0), (TEXT_LIMIT, 0), (1, 1)]
    assert site.numbers == [1, 2, 3]


# ---------------------------------------------------------------- time


def test_text_gathers_and_what_is_marked_does_not(site: Site) -> None:
    assert site.capture.next_deadline() is None
    site.read(b"a")
    site.empty()
    assert site.capture.next_deadline() == site.now + GATHER_S
    site.read(mark(FIRST))
    assert site.capture.next_deadline() == site.now
    site.taken()
    assert site.capture.next_deadline() is None
    site.read(mark(FIRST, 2))
    assert site.capture.next_deadline() == site.now + MARK_GATHER_S, "many marks make no flood of messages"


def test_the_end_of_an_engine(site: Site) -> None:
    site.read(b"last words")
    site.capture.on_ended(KEY, FIRST, now=site.now)
    assert site.capture.next_deadline() == site.now
    assert site.taken() == [Said(FIRST, "last words")]
    assert not site.capture.is_flooding(KEY)
    assert repr(site.capture) == "<Capture of 0 engines, 0 texts pending>"


# ---------------------------------------------------------------- bounds


def test_a_flood_is_left_out_and_counted() -> None:
    site = Site(burst_bytes=100, rate_bytes_s=10, own_bytes=0)
    site.read(b"a" * 90)
    site.read(b"b" * 30)
    site.read(b"c" * 5)
    site.empty()
    assert site.capture.is_flooding(KEY)
    assert [one.text for one in site.taken()] == ["a" * 90, "b" * 10]
    site.now += 0.5
    site.read(b"d" * 3)
    site.empty()
    assert site.taken() == [], "not in drops"
    site.now += 0.6
    site.read(b"e" * 4)
    site.empty()
    assert not site.capture.is_flooding(KEY)
    note, text = site.taken()
    assert note.text.startswith("\n[28 characters of this output were left out")
    assert text.text == "eeee"


def test_what_was_left_out_is_said_before_the_task_ends() -> None:
    site = Site(burst_bytes=10, rate_bytes_s=1, own_bytes=0)
    site.read(b"a" * 10 + b"b" * 7 + mark(FIRST))
    whole = "".join(one.text for one in site.taken())
    assert "[7 characters of this output were left out" in whole
    assert "a" * 10 in whole


def test_nothing_grows_while_nobody_takes() -> None:
    """The supervisor has no connection: time alone makes no room."""
    site = Site(burst_bytes=100, rate_bytes_s=1000, own_bytes=50)
    for _ in range(1000):
        site.now += 1.0
        site.read(b"x" * 60)
        site.empty()
    texts = site.taken()
    assert sum(one.text.count("x") for one in texts) <= 100
    assert "x" * 60 in texts[0].text
    site.now += 1.0
    site.read(b"y")
    site.empty()
    assert "[59,900 characters" in site.taken()[0].text


def test_the_next_task_does_not_suffer_for_a_flood() -> None:
    site = Site(burst_bytes=100, rate_bytes_s=10, own_bytes=4)
    site.read(b"a" * 200 + mark(FIRST) + b"bbb" + mark(SECOND, 2) + b"ccc")
    site.taken()
    site.empty(TaskId(3))
    site.read(b"ddd")
    site.empty(TaskId(3))
    assert [one.text for one in site.taken()] == ["ccc", "d"]
    assert site.capture.is_flooding(KEY)


def test_the_text_of_the_next_task_passes_with_its_mark() -> None:
    site = Site(burst_bytes=100, rate_bytes_s=10, own_bytes=4)
    site.read(b"a" * 200 + mark(FIRST))
    site.taken()
    site.read(b"bbb" + mark(SECOND, 2))
    assert site.taken() == [Said(SECOND, "bbb", 2, 1)]


def test_the_defaults_let_a_big_line_pass() -> None:
    site = Site()
    site.read(b"z" * (10 << 20))
    site.empty()
    assert sum(len(one.text) for one in site.taken()) == 10 << 20 < BURST_BYTES
