"""The page that outlives its engine."""

import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from enginery.ids import ClientId, EngineKey, TaskId, make_task_id
from enginery.transport.status_page import PAGE_SIZE_BYTES, EngineStatusPage, StatusPage, read_status_page

KEY = EngineKey("0123456789abcdef")


def _task(number: int) -> TaskId:
    return make_task_id(ClientId(0x7FFFFFFF), number)


def test_a_page_says_what_runs(tmp_path: Path) -> None:
    path = tmp_path / KEY
    page = StatusPage(path, KEY, started_at=12.5)
    assert path.stat().st_size == PAGE_SIZE_BYTES
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_status_page(path) == EngineStatusPage(KEY, 12.5, TaskId(0), TaskId(0))
    page.start(_task(1))
    assert read_status_page(path) == EngineStatusPage(KEY, 12.5, _task(1), _task(1))
    page.start(_task(2))
    page.run(_task(1))
    assert read_status_page(path) == EngineStatusPage(KEY, 12.5, _task(2), _task(1))
    page.finish()
    page.close()
    page.close()
    assert read_status_page(path) == EngineStatusPage(KEY, 12.5, _task(2), TaskId(0))


def test_an_engine_started_again_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / KEY
    page = StatusPage(path, KEY, started_at=1.0)
    page.start(_task(9))
    page.close()
    StatusPage(path, KEY, started_at=2.0).close()
    assert read_status_page(path) == EngineStatusPage(KEY, 2.0, TaskId(0), TaskId(0))


@pytest.mark.parametrize(
    "data", [b"", b"short", bytes(PAGE_SIZE_BYTES), b"\xff" * PAGE_SIZE_BYTES, bytes(4096)]
)
def test_a_page_that_is_not_whole_says_nothing(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / KEY
    path.write_bytes(data)
    assert read_status_page(path) is None


def test_no_page(tmp_path: Path) -> None:
    assert read_status_page(tmp_path / KEY) is None


def test_a_store_that_was_cut_between_two_words_has_begun_the_task(tmp_path: Path) -> None:
    path = tmp_path / KEY
    StatusPage(path, KEY, started_at=1.0).close()
    data = bytearray(path.read_bytes())
    struct.pack_into("=Q", data, 32, _task(5))
    path.write_bytes(data)
    assert read_status_page(path) == EngineStatusPage(KEY, 1.0, _task(5), TaskId(0))


def test_a_wrong_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not the key of an engine"):
        StatusPage(tmp_path / "x", EngineKey("short"), started_at=0.0)
    assert not (tmp_path / "x").exists()


def test_the_page_is_right_after_sigkill(tmp_path: Path) -> None:
    path = tmp_path / KEY
    program = (
        "import os, sys, pathlib; from enginery.transport.status_page import StatusPage\n"
        f"page = StatusPage(pathlib.Path({str(path)!r}), {KEY!r}, started_at=1.0)\n"
        f"page.start({_task(3)}); os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=30, check=False, env=_environment())
    assert done.returncode == -signal.SIGKILL
    assert read_status_page(path) == EngineStatusPage(KEY, 1.0, _task(3), _task(3))


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
