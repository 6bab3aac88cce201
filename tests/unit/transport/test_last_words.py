"""The last words of tasks: whole, in order, and only those of this round."""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from enginery.ids import TaskId
from enginery.transport.last_words import LONGEST_SLOTS, SLOT_BYTES, SLOTS, KeptWord
from enginery.transport.status_page import PAGE_SIZE_BYTES, StatusPage, read_status_page

TASK = TaskId(7)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "page"


def kept(path: Path) -> list[KeptWord]:
    content = read_status_page(path)
    assert content is not None
    return content.words


def test_words_come_back_as_they_were(path: Path) -> None:
    page = StatusPage.create(path)
    numbers = [
        page.last_words.keep(TASK, 1, 0, "a\n"),
        page.last_words.keep(TaskId(8), 2, 1, "é€", is_late=True),
        page.last_words.keep(TASK, 1, 0, "", mark=5),
    ]
    page.close()
    assert numbers == [1, 2, 3]
    assert kept(path) == [
        KeptWord(1, TASK, 1, 0, False, 0, "a\n"),
        KeptWord(2, TaskId(8), 2, 1, True, 0, "é€"),
        KeptWord(3, TASK, 1, 0, False, 5, ""),
    ]


@pytest.mark.parametrize("letter", ["x", "é", "€", "😀"])
def test_long_texts_are_kept_to_their_end(path: Path, letter: str) -> None:
    page = StatusPage.create(path)
    short, long = "-" + letter * 1000, letter * LONGEST_SLOTS * SLOT_BYTES
    page.last_words.keep(TASK, 1, 0, short)
    number = page.last_words.keep(TaskId(8), 1, 0, long)
    page.close()
    words = kept(path)
    assert [word.number for word in words] == list(range(1, number + 1))
    assert "".join(word.text for word in words if word.task == TASK) == short
    end = "".join(word.text for word in words if word.task == 8)
    assert long.endswith(end)
    assert len(end) > LONGEST_SLOTS * SLOT_BYTES // 8


def test_the_oldest_ones_go(path: Path) -> None:
    page = StatusPage.create(path)
    for number in range(SLOTS + 10):
        page.last_words.keep(TASK, 1, 0, str(number))
    page.close()
    assert [word.text for word in kept(path)] == [str(number) for number in range(10, SLOTS + 10)]


def test_a_slot_that_was_not_filled_to_its_end_says_nothing_new(path: Path) -> None:
    page = StatusPage.create(path)
    for number in range(SLOTS):
        page.last_words.keep(TASK, 1, 0, str(number))
    page.close()
    data = bytearray(path.read_bytes())
    start = PAGE_SIZE_BYTES - SLOTS * SLOT_BYTES + SLOT_BYTES  # of the slot that comes next
    assert struct.unpack_from("=Q", data, start) == (1,)
    data[start + 8 : start + SLOT_BYTES] = b"\xff" * (SLOT_BYTES - 8)
    path.write_bytes(data)
    assert [word.number for word in kept(path)][1:] == list(range(2, SLOTS + 1))


def test_words_outlive_a_kill(path: Path) -> None:
    program = (
        "import os, sys; from enginery.transport.status_page import StatusPage\n"
        f"page = StatusPage.create({str(path)!r})\n"
        f"page.last_words.keep(7, 1, 1, 'last'); os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
    )
    subprocess.run([sys.executable, "-c", program], timeout=30, check=False)
    assert kept(path) == [KeptWord(1, TASK, 1, 1, False, 0, "last")]
