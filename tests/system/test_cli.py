"""The command `enginery` with real clusters."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import enginery as ipp
from enginery.cli.foreground import EARLY_S

END_S = 30


def enginery(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "enginery", *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that stays; killed if the test fails."""
    command = [sys.executable, "-m", "enginery", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def end(process: subprocess.Popen[str], signum: int) -> tuple[int, str, str]:
    process.send_signal(signum)
    out, err = process.communicate(timeout=END_S)
    return process.returncode, out, err


def test_daemonized_it_can_be_looked_at_used_and_stopped(runtime_directory: Path) -> None:
    result = enginery("start", "-n", "2", "--daemonize")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (
        "the cluster 'default' runs with 2 engines; use it with:  enginery.Client()   "
        "stop it with:  enginery stop default\n"
    )
    (row,) = json.loads(enginery("list", "-o", "json").stdout)
    assert row["name"] == "default"
    assert (row["state"], row["engines"]) == ("running", 2)
    controller = psutil.Process(row["pid"])
    assert "controller default" in " ".join(controller.cmdline())

    with ipp.Client() as rc:
        assert rc.ids == [0, 1]  # all engines had answered
        assert rc[:].apply_sync(lambda: 1) == [1, 1]

    status = json.loads(enginery("status", "-o", "json").stdout)
    assert (status["name"], status["clients"]) == ("default", 0)
    assert [engine["state"] for engine in status["engines"]] == ["idle", "idle"]
    assert all(engine["memory"] > 1 << 20 for engine in status["engines"])
    assert status["tasks"]["done"] == 2
    assert "==> controller <==" in enginery("logs").stdout

    again = enginery("start", "-n", "1")
    assert again.returncode == 10
    assert again.stderr.startswith("enginery: a cluster named 'default' is already running;")

    stopped = enginery("stop")
    assert (stopped.returncode, stopped.stdout) == (0, "the cluster 'default' is stopped\n")
    assert not controller.is_running()
    assert list(runtime_directory.iterdir()) == []
    assert enginery("stop").returncode == 11


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_in_the_foreground_it_ends_with_a_signal_and_leaves_nothing(
    runtime_directory: Path, signum: signal.Signals
) -> None:
    with running("start", "-n", "2") as command:
        assert first_line(command) == (
            "the cluster 'default' runs with 2 engines; use it with:  enginery.Client()   "
            "stop it with:  Ctrl-C\n"
        )
        members = psutil.Process(command.pid).children(recursive=True)
        assert len(members) >= 4
        assert end(command, signum) == (0, "", "")
    assert [member for member in members if member.is_running()] == []
    assert list(runtime_directory.iterdir()) == []


def test_a_signal_while_it_starts(runtime_directory: Path) -> None:
    with running("start", "-n", "2") as command:
        # The host's interpreter is there: the start is under way.
        wait_for_child(command)
        code, out, err = end(command, signal.SIGINT)
    assert (code, out, err) == (0, "", "")
    assert list(runtime_directory.iterdir()) == []


def wait_for_child(command: subprocess.Popen[str]) -> None:
    process, deadline = psutil.Process(command.pid), time.monotonic() + END_S
    while not process.children():
        assert command.poll() is None
        assert time.monotonic() < deadline


def test_in_the_foreground_it_ends_with_its_cluster(runtime_directory: Path) -> None:
    with running("start", "-n", "1", "--name", "short") as command:
        assert "use it with:  enginery.Client('short')" in first_line(command)
        assert enginery("stop", "short").stdout == "the cluster 'short' is stopped\n"
        out, err = command.communicate(timeout=EARLY_S / 2)  # it does not wait any longer for engines to die
    assert (command.returncode, out, err) == (0, "the cluster 'short' has ended\n", "")
    assert enginery("logs", "short").returncode == 0
    shutil.rmtree(runtime_directory / "short")


def test_engines_join_and_leave(runtime_directory: Path) -> None:
    with ipp.Cluster(n=1) as rc:
        with running("engine", rc.cluster.name, "-n", "2") as command:
            rc.wait_for_engines(3, timeout=30)
            assert rc[:].apply_sync(lambda: 1) == [1, 1, 1]
            members = psutil.Process(command.pid).children(recursive=True)
            assert end(command, signal.SIGTERM)[0] == 0
        assert rc.session.wait_until(lambda: rc.ids == [0], 30)
        assert [member for member in members if member.is_running()] == []
    assert list(runtime_directory.iterdir()) == []


def test_a_controller_alone_and_its_engines(runtime_directory: Path) -> None:
    with running("controller", "alone") as controller, running_when_there("alone") as engines:
        with ipp.Client("alone") as rc:
            rc.wait_for_engines(1, timeout=30)
            assert rc[0].apply_sync(lambda: 1) == 1
        assert enginery("stop", "alone").returncode == 0
        assert controller.wait(END_S) == 0
        engines.communicate(timeout=END_S)
    shutil.rmtree(runtime_directory / "alone")
    assert list(runtime_directory.iterdir()) == []


@contextmanager
def running_when_there(name: str) -> Iterator[subprocess.Popen[str]]:
    deadline = time.monotonic() + END_S
    while enginery("status", name).returncode == 12:
        assert time.monotonic() < deadline
    with running("engine", name, "-n", "1") as command:
        yield command


def test_all_are_stopped_and_several_must_be_named(runtime_directory: Path) -> None:
    for name in ("one", "two"):
        assert enginery("start", "-n", "1", "--name", name, "--daemonize").returncode == 0
    unclear = enginery("stop")
    assert unclear.returncode == 12
    assert unclear.stderr == "enginery: 2 clusters are running; name one of them: 'one', 'two'\n"
    result = enginery("stop", "--all")
    assert result.stdout == "the cluster 'one' is stopped\nthe cluster 'two' is stopped\n"
    assert result.returncode == 0
    for name in ("one", "two"):
        shutil.rmtree(runtime_directory / name)


def test_a_start_that_fails_says_why(runtime_directory: Path) -> None:
    result = enginery("start", "-n", "1", "--host", "203.0.113.7")
    assert result.returncode == 1
    assert result.stderr.startswith("enginery: the cluster 'default' could not be started:")
    assert "203.0.113.7 cannot be bound" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(runtime_directory.iterdir()) == []


def test_engines_join_with_start_up_code(runtime_directory: Path, tmp_path: Path) -> None:
    script = tmp_path / "begin.py"
    script.write_text("second = first + 1\n")
    with ipp.Cluster(n=0) as rc:
        arguments = (
            "--name",
            rc.cluster.name,
            "-n",
            "1",
            "-c",
            "first = 1",
            "-s",
            str(script),
            "--timeout",
            "5",
        )
        with running("engine", *arguments) as command:
            rc.wait_for_engines(1, timeout=30)
            assert rc[0].apply_sync(lambda: (first, second)) == (1, 2)  # type: ignore[name-defined]  # noqa: F821
            assert end(command, signal.SIGTERM)[0] == 0
    assert list(runtime_directory.iterdir()) == []


def test_signals_are_passed_on_to_the_engines() -> None:
    with running("start", "-n", "1") as command:
        first_line(command)
        with ipp.Client() as rc:
            rc[0].apply_sync(arm)
            command.send_signal(signal.SIGUSR1)
            assert rc[0].apply_sync(wait_for_signal) is True
        assert end(command, signal.SIGTERM) == (0, "", "")


def arm() -> None:
    import builtins

    builtins.came = []  # type: ignore[attr-defined]
    signal.signal(signal.SIGUSR1, lambda *_: builtins.came.append(1))  # type: ignore[attr-defined]


def wait_for_signal() -> bool:
    import builtins

    deadline = time.monotonic() + END_S
    while not builtins.came and time.monotonic() < deadline:  # type: ignore[attr-defined]
        signal.sigtimedwait([signal.SIGUSR2], 0.05)
    return bool(builtins.came)  # type: ignore[attr-defined]


def test_engines_that_die_early_end_the_start(runtime_directory: Path) -> None:
    with running("start", "-n", "2") as command:
        first_line(command)
        with ipp.Client() as rc:
            pids = rc[:].apply_sync(os.getpid)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        out, err = command.communicate(timeout=END_S)
    assert (command.returncode, out) == (1, "")
    lines = err.splitlines()
    assert lines[0] == ("enginery: all 2 engines died within 30 s of the start: killed by SIGKILL (signal 9)")
    assert lines[1] == "The last lines of the cluster's logs:"
    assert list(runtime_directory.iterdir()) == []


def test_clean_takes_what_is_left(runtime_directory: Path) -> None:
    assert enginery("start", "-n", "1", "--name", "night", "--daemonize").returncode == 0
    refused = enginery("clean", "night")
    assert refused.returncode == 10
    assert "the cluster 'night' is running; use --force" in refused.stderr
    assert enginery("stop", "night").returncode == 0
    assert (runtime_directory / "night").exists()
    assert enginery("clean").stdout == ""  # a name keeps its history
    assert enginery("clean", "night").stdout == "the cluster 'night' is removed\n"
    assert enginery("clean", "night").returncode == 12
    assert enginery("start", "-n", "1", "--daemonize").returncode == 0
    assert enginery("clean", "--all", "--force").stdout == "the cluster 'default' is removed\n"
    assert list(runtime_directory.iterdir()) == []


def test_a_location_is_what_others_are_told(runtime_directory: Path) -> None:
    with ipp.Cluster(n=0, location="localhost") as rc:
        info = json.loads(Path(rc.connection_file).read_text())
        first, second = info["tcp"]
        assert first.startswith("tcp://localhost:")
        assert second.startswith("tcp://127.0.0.1:")
