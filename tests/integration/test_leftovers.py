"""The proof that nothing is left behind notices what it is for."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tests.leftovers import SHARED_MEMORY, Ground

FOREVER = "import sys; print('up', flush=True); sys.stdin.read()"
DAEMON = """
import os, sys
if os.fork() == 0:
    os.setsid()
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def test_nothing_is_nothing(ground: Ground) -> None:
    assert ground.leftovers(ground.look(), grace_s=0) == []


def test_a_child_process(ground: Ground) -> None:
    before = ground.look()
    with subprocess.Popen([sys.executable, "-c", FOREVER], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        (line,) = ground.leftovers(before, grace_s=0)
        assert line.startswith(f"process {process.pid}: {sys.executable} -c import sys")
        ground.clear(before)
        process.wait(timeout=5)
    assert ground.leftovers(before, grace_s=0) == []


def test_a_daemon_is_known_by_its_runtime_directory(ground: Ground) -> None:
    before = ground.look()
    environment = os.environ | {"ENGINERY_RUNTIME_DIR": str(ground.directory)}
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", DAEMON], stdin=-1, stdout=-1, text=True, env=environment
    ) as parent:
        assert parent.stdout is not None
        daemon = int(parent.stdout.readline())
        parent.wait(timeout=5)
        (line,) = ground.leftovers(before, grace_s=0)
        assert line.startswith(f"process {daemon}: ")
        ground.clear(before)
    assert ground.leftovers(before, grace_s=0) == []


def test_a_thread(ground: Ground) -> None:
    before = ground.look()
    release = threading.Event()
    thread = threading.Thread(target=release.wait, name="forgotten", args=(30,))
    thread.start()
    assert ground.leftovers(before, grace_s=0) == ["thread 'forgotten'"]
    release.set()
    assert ground.leftovers(before, grace_s=5) == []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads can be named only on Linux")
def test_a_context_of_0mq(ground: Ground) -> None:
    before = ground.look()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.socket(zmq.DEALER).close()
    assert ground.leftovers(before, grace_s=0) == ["threads of 0MQ: a Context was not terminated"]
    context.term()
    assert ground.leftovers(before, grace_s=0) == []


def test_files(ground: Ground) -> None:
    before = ground.look()
    (ground.directory / "default").mkdir()
    (ground.directory / "default" / "lock").write_text("")
    assert ground.leftovers(before, grace_s=0) == [
        f"file {ground.directory / 'default'}",
        f"file {ground.directory / 'default' / 'lock'}",
    ]
    ground.clear(before)
    assert list(ground.directory.iterdir()) == []


def test_what_was_there_may_grow(ground: Ground) -> None:
    (ground.directory / "default").mkdir()
    before = ground.look()
    (ground.directory / "default" / "log").write_text("")
    assert ground.leftovers(before, grace_s=0) == []
    ground.clear(before)
    assert (ground.directory / "default" / "log").exists()


def test_what_is_left_fails_the_test_and_is_taken_away(ground: Ground) -> None:
    with ground.as_it_was("nobody"):
        pass
    left = pytest.raises(pytest.fail.Exception, match=r"somebody has left behind:\n  file .*/lock")
    with left, ground.as_it_was("somebody"):
        (ground.directory / "lock").write_text("")
    assert list(ground.directory.iterdir()) == []


@pytest.fixture
def shared_file() -> Iterator[Path]:
    path = SHARED_MEMORY / f"enginery-test-{os.getpid()}"
    yield path
    path.unlink(missing_ok=True)


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="no shared-memory file system")
def test_shared_memory(ground: Ground, shared_file: Path) -> None:
    before = ground.look()
    shared_file.write_bytes(b"x")
    assert ground.leftovers(before, grace_s=0) == [f"shared memory {shared_file}"]
    holder = "import sys; file = open(sys.argv[1]); print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(shared_file)], stdin=-1, stdout=-1, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "up\n"
        assert not any("shared memory" in line for line in ground.leftovers(before, grace_s=0))
        other.communicate(timeout=5)
    ground.clear(before)
    assert not shared_file.exists()
