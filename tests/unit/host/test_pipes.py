"""The reading ends of engines' pipes: read without waiting, logged within bounds, nobody's after the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from enginery.core.capture import Capture
from enginery.host import pipes as pipes_module
from enginery.host.pipes import FLOOD_PAUSE_S, EnginePipes
from enginery.ids import EngineKey, TaskId
from enginery.protocol.marks import Mark, Marks
from enginery.transport.channel import NO_FILE
from enginery.transport.status_page import StatusPage

KEY = EngineKey("0123456789abcdef")
FIRST, SECOND = TaskId(1), TaskId(2)
NOW = 10.0


class Site:
    """One engine's writing ends, its page, and the pipes of its host."""

    def __init__(self, directory: Path) -> None:
        ends = [os.pipe() for _ in range(2)]
        self.writing = [writing for _, writing in ends]
        self.log = directory / "engine.log"
        self.pipes = EnginePipes()
        self.pipes.open(
            KEY, [reading for reading, _ in ends], log_path=self.log, page_path=directory / "page", now=NOW
        )
        self.page = StatusPage.create(directory / "page")
        self.meters = [self.page.meter(place) for place in range(2)]

    def write(self, stream: int, data: bytes) -> None:
        os.write(self.writing[stream], data)

    def taken(self, now: float = NOW) -> list[tuple[int, str, str, int]]:
        texts = self.pipes.capture.take(now=now)
        return [(text.task, text.stream, text.text, text.mark) for text in texts]

    def close(self) -> None:
        self.pipes.close()
        self.pipes.close()
        self.page.close()
        for end in self.writing:
            if end != NO_FILE:
                os.close(end)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def test_what_is_there_is_read_and_logged(site: Site) -> None:
    site.pipes.read(now=NOW)
    site.write(0, b"before any task\n")
    site.pipes.read(now=NOW)
    site.page.start(FIRST)
    site.write(0, b"out\n" + Marks(KEY).encode(Mark(FIRST, 1, 1)))
    site.write(1, "é\n".encode())
    site.pipes.read(now=NOW)
    assert sorted(site.taken()) == [(FIRST, "stderr", "é\n", 0), (FIRST, "stdout", "out\n", 1)]
    assert sorted(site.log.read_text().splitlines()) == ["before any task", "out", "é"]
    assert site.log.stat().st_mode & 0o777 == 0o600
    assert [meter.written(end) for meter, end in zip(site.meters, site.writing, strict=True)] == [
        len("before any task\nout\n") + Marks(KEY).size_bytes, 3,
    ]  # fmt: skip
    assert repr(site.pipes) == "<EnginePipes of 1 engines, 0 left over>"


def test_the_newest_task_at_the_next_look_has_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page goes on between the text and the look at it; the mark of the task before is there by then."""
    site.page.start(FIRST)
    site.write(0, b"first\n")
    on_read = Capture.on_read

    def overtake(self: Capture, *args: object, now: float) -> bytes:
        monkeypatch.setattr(Capture, "on_read", on_read)
        site.write(0, Marks(KEY).encode(Mark(FIRST, 1, 1)))
        site.page.start(SECOND)
        return on_read(self, *args, now=now)  # type: ignore[arg-type]

    monkeypatch.setattr(Capture, "on_read", overtake)
    site.pipes.read(now=NOW)
    assert site.taken() == [(FIRST, "stdout", "first\n", 1)]


def test_a_log_is_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for engine in site.pipes._engines.values():
        engine._log_left = 10
    for _ in range(3):
        site.write(0, b"12345678")
        site.pipes.read(now=NOW)
    assert site.log.read_text() == (f"1234567812\n[output of engine process {KEY} is no longer kept here]\n")


def test_a_log_that_cannot_be_written_is_given_up(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.log.mkdir()
    for _ in range(2):
        site.write(0, b"text")
        site.pipes.read(now=NOW)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_flood_is_looked_at_now_and_then(site: Site) -> None:
    site.pipes.capture = Capture(burst_bytes=10, rate_bytes_s=1, own_bytes=0)
    site.pipes.capture.on_started(KEY, now=NOW)
    site.page.start(FIRST)
    site.write(0, b"x" * 100)
    site.pipes.read(now=NOW)
    assert [pipe.stream for pipe in site.pipes.sources()] == ["stderr"]
    assert site.pipes.next_deadline() == NOW + FLOOD_PAUSE_S
    site.pipes.read(now=NOW + FLOOD_PAUSE_S)
    assert [pipe.stream for pipe in site.pipes.sources()] == ["stdout", "stderr"]
    assert site.pipes.next_deadline() is None


def test_after_the_end_of_the_engine_what_comes_is_for_the_log(site: Site) -> None:
    """A process that it has started holds the pipe; the engine's end does not wait for that."""
    site.page.start(FIRST)
    site.write(0, b"last\n")
    site.pipes.on_ended(KEY, now=NOW)
    assert site.taken() == [(FIRST, "stdout", "last\n", 0)]
    assert repr(site.pipes) == "<EnginePipes of 0 engines, 1 left over>"
    site.write(0, b"later\n")
    site.pipes.read(now=NOW)
    assert site.taken() == []
    assert site.log.read_text() == "last\nlater\n"
    for place, end in enumerate(site.writing):
        os.close(end)
        site.writing[place] = NO_FILE
    site.pipes.read(now=NOW)
    assert repr(site.pipes) == "<EnginePipes of 0 engines, 0 left over>"
    assert site.pipes.sources() == ()
    site.pipes.on_ended(KEY, now=NOW)


def test_who_writes_for_ever_is_not_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes_module, "READ_BYTES", 1)
    site.pipes._buffer = bytearray(1)
    site.page.start(FIRST)
    site.write(0, b"x" * 1000)
    site.pipes.on_ended(KEY, now=NOW)
    assert "".join(text for _, _, text, _ in site.taken()) == "x" * pipes_module.LAST_LOOKS


def test_without_descriptors_nothing_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipes = EnginePipes()
    pipes.open(KEY, [], log_path=tmp_path / "log", page_path=tmp_path / "page", now=NOW)
    assert "is lost: too many files are open" in caplog.text
    assert pipes.sources() == ()
    pipes.read(now=NOW)
    pipes.on_ended(KEY, now=NOW)
    pipes.close()


def test_without_a_page_text_is_nobodys(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reading, writing = os.pipe()
    other, unused = os.pipe()
    pipes = EnginePipes()
    page_path = tmp_path / "nowhere" / "page"
    pipes.open(KEY, [reading, other], log_path=tmp_path / "log", page_path=page_path, now=NOW)
    os.write(writing, b"text\n")
    pipes.read(now=NOW)
    assert pipes.capture.take(now=NOW) == []
    assert (tmp_path / "log").read_text() == "text\n"
    assert "cannot be mapped" in caplog.text
    pipes.close()
    os.close(writing)
    os.close(unused)
