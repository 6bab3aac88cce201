"""The page that outlives its engine."""

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from enginery.ids import ClientId, TaskId, make_task_id
from enginery.transport.status_page import PAGE_SIZE_BYTES, SLOTS, StatusPage, read_status_page

KEY = "0123456789abcdef"
IDLE = TaskId(0)


def _task(number: int) -> TaskId:
    return make_task_id(ClientId(0x7FFFFFFF), number)


def test_a_page_says_what_was_begun_and_what_runs(tmp_path: Path) -> None:
    path = tmp_path / KEY
    page = StatusPage.create(path)
    assert path.stat().st_size == PAGE_SIZE_BYTES
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_status_page(path) == ([], IDLE, 0.0, [])
    before = time.time()
    page.start(_task(1))
    content = read_status_page(path)
    assert content is not None
    assert (content.started, content.running) == ([_task(1)], _task(1))
    assert before <= content.started_at <= time.time()
    page.start(_task(2))
    page.finish(outer=_task(1))
    content = read_status_page(path)
    assert content is not None
    assert (content.started, content.running) == ([_task(1), _task(2)], _task(1))
    page.finish()
    page.close()
    page.close()
    content = read_status_page(path)
    assert content is not None
    assert (content.started, content.running) == ([_task(1), _task(2)], IDLE)


@pytest.mark.parametrize("count", [SLOTS - 2, SLOTS - 1, SLOTS, SLOTS + 1, 3 * SLOTS + 7])
def test_the_last_ones_are_kept_in_order(tmp_path: Path, count: int) -> None:
    path = tmp_path / KEY
    page = StatusPage.create(path)
    for number in range(count):
        page.start(_task(number))
    page.close()
    content = read_status_page(path)
    assert content is not None
    assert content.started == [_task(number) for number in range(max(0, count - SLOTS + 1), count)]


def test_an_engine_that_starts_again_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / KEY
    page = StatusPage.create(path)
    page.start(_task(9))
    page.close()
    StatusPage.create(path).close()
    assert read_status_page(path) == ([], IDLE, 0.0, [])


@pytest.mark.parametrize(
    "data", [b"", b"short", bytes(PAGE_SIZE_BYTES), b"\xff" * PAGE_SIZE_BYTES, bytes(PAGE_SIZE_BYTES + 8)]
)
def test_a_page_that_is_not_whole_says_nothing(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / KEY
    path.write_bytes(data)
    assert read_status_page(path) is None


def test_no_page(tmp_path: Path) -> None:
    assert read_status_page(tmp_path / KEY) is None


def test_a_start_that_was_cut_before_the_count_has_not_begun(tmp_path: Path) -> None:
    path = tmp_path / KEY
    page = StatusPage.create(path)
    page.start(_task(1))
    page.close()
    data = bytearray(path.read_bytes())
    struct.pack_into("=Q", data, (8 + 1) * 8, _task(2))
    path.write_bytes(data)
    content = read_status_page(path)
    assert content is not None
    assert (content.started, content.running) == ([_task(1)], _task(1))


def test_the_page_is_right_after_sigkill(tmp_path: Path) -> None:
    path = tmp_path / KEY
    program = (
        "import os; from enginery.transport.status_page import StatusPage\n"
        f"page = StatusPage.create({str(path)!r})\n"
        f"page.start({_task(3)}); os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], timeout=30, check=False, env=environment)
    assert done.returncode == -signal.SIGKILL
    content = read_status_page(path)
    assert content is not None
    assert (content.started, content.running) == ([_task(3)], _task(3))
