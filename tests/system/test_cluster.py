"""`Cluster` with real processes: entered, used, left, in every way a program may do it."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import enginery as ipp
from enginery.cluster.cluster import Cluster
from enginery.cluster.cluster_manager import ClusterManager, clean_cluster_files
from enginery.cluster.engine_sets import EngineSet
from tests.conftest import start_method_of_this_run

END_S = 30.0
"""What is promised for the end of everything after the end of its owner."""


def processes_of(name: str) -> list[psutil.Process]:
    """The processes of a cluster, by what they say of themselves."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or ())
        if name in line and "enginery" in line and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def run_script(text: str, *arguments: str, warnings: str = "error") -> subprocess.CompletedProcess[str]:
    """Run a program as a user would, from a file; its standard error must stay empty."""
    return subprocess.run(
        [sys.executable, "-W", warnings, "-c", text, *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_entered_all_engines_have_answered_and_left_nothing_is_left(runtime_directory: Path) -> None:
    cluster = Cluster(n=2)
    with cluster as rc:
        assert rc.ids == [0, 1]
        assert rc[:].apply_sync(lambda: 6 * 7) == [42, 42]
        assert rc.cluster is cluster
        assert cluster.is_running()
        assert repr(cluster) == f"<Cluster {cluster.name!r}: running, 2 engines>"
        assert rc.connection_file == cluster.connection_file
        members = processes_of(cluster.name)
        assert len(members) <= 2 + 3
    assert not cluster.is_running()
    assert list(runtime_directory.iterdir()) == []
    assert [process for process in members if process.is_running()] == []
    with pytest.raises(ipp.ClientClosed):
        rc[:].apply_sync(lambda: 1)


def test_each_process_says_what_it_is() -> None:
    with Cluster(n=1, name="signs") as rc:
        lines = [" ".join(process.cmdline()) for process in processes_of("signs")]
        assert sum("controller" in line for line in lines) == 1
        for role in ("controller", "host", "engine"):
            assert any(f"{role} signs" in line for line in lines), lines
        own = {psutil.Process(pid) for pid in rc[:].apply_sync(os.getpid)}
        assert own <= set(psutil.Process().children(recursive=True))
    shutil.rmtree(Path(rc.connection_file).parent)


def test_as_many_engines_as_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enginery.cluster.cluster.available_cores", lambda: 1)
    with Cluster() as rc:
        assert len(rc) == rc.cluster.n == 1


def test_the_faces_to_be_awaited() -> None:
    async def main() -> list[int]:
        cluster = Cluster(n=1)
        rc = await cluster.start_and_connect()
        try:
            assert await cluster.start_engines(1) == "set-1"
            rc.wait_for_engines(2, timeout=20)
            await cluster.stop_engine(0)
            await cluster.restart_engine(1)
            await cluster.signal_engine("CONT", 1)
            assert rc.session.wait_until(lambda: rc.ids == [1], 20)
            return rc.ids
        finally:
            rc.close()
            await cluster.stop_cluster()
            assert await cluster.wait(0)

    assert asyncio.run(main()) == [1]


def test_async_with() -> None:
    async def main() -> list[int]:
        async with Cluster(n=1) as rc:
            return rc[:].apply_sync(lambda: 3)

    assert asyncio.run(main()) == [3]


def test_a_cancelled_start_leaves_nothing(runtime_directory: Path) -> None:
    async def main() -> None:
        cluster = Cluster(n=1)

        async def use() -> None:
            async with cluster:
                raise AssertionError("entered after the cancellation")

        using = asyncio.ensure_future(use())
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the start has begun in its thread
        using.cancel()
        with pytest.raises(asyncio.CancelledError):
            await using
        assert not cluster.is_running()

    asyncio.run(main())
    assert list(runtime_directory.iterdir()) == []


def test_sets_of_engines_come_and_go() -> None:
    cluster = Cluster(n=1)
    cluster.start_cluster_sync()
    with cluster.connect_client_sync() as rc:
        rc.wait_for_engines(1, timeout=20)
        added = cluster.start_engines_sync(2, "more")
        assert added == "more"
        assert cluster.engines == {"set-0": EngineSet("set-0", (0,)), "more": EngineSet("more", (1, 2))}
        assert cluster.engine_set == EngineSet("set-0", (0,))
        cluster.stop_engines_sync(added)  # at once: those that have not answered yet are not missed
        assert rc.session.wait_until(lambda: rc.ids == [0], 20)
        assert list(cluster.engines) == ["set-0"]
        assert rc[0].apply_sync(lambda: "still here") == "still here"
        cluster.stop_engines_sync()
        assert rc.session.wait_until(lambda: rc.ids == [], 20)
        assert cluster.engines == {}
    cluster.stop_cluster_sync()


def test_restarted_engines_keep_their_ids_and_lose_their_names() -> None:
    cluster = Cluster(n=2)
    with cluster as rc:
        rc[:].push({"name": 1}, block=True)
        before = rc[:].apply_sync(os.getpid)
        cluster.restart_engine_sync(1)
        middle = rc[:].apply_sync(os.getpid)
        assert (middle[0], middle[1] != before[1]) == (before[0], True)
        assert rc[:].apply_sync(lambda: "name" in globals()) == [True, False]
        cluster.restart_engines_sync("set-0")
        assert rc.ids == [0, 1]
        assert set(rc[:].apply_sync(os.getpid)).isdisjoint([*before, *middle])
        with pytest.raises(ValueError, match="there is no engine 7; the engines are: 0, 1"):
            cluster.restart_engine_sync(7)


def test_signals_reach_engines_by_number_or_name() -> None:
    cluster = Cluster(n=2)
    with cluster as rc:
        rc[:].apply_sync(count_signals)
        cluster.signal_engines_sync(signal.SIGUSR1)
        assert rc[:].apply_sync(wait_for_signals, 1) == [1, 1]
        cluster.signal_engine_sync("usr1", 1)
        assert rc[1].apply_sync(wait_for_signals, 2) == 2
        assert rc[0].apply_sync(wait_for_signals, 1) == 1
        with pytest.raises(ValueError, match="there is no signal 'SIGNOTHING' here"):
            cluster.signal_engines_sync("SIGNOTHING")


def count_signals() -> None:
    import builtins

    builtins.came = []  # type: ignore[attr-defined]
    signal.signal(signal.SIGUSR1, lambda *_: builtins.came.append(1))  # type: ignore[attr-defined]


def wait_for_signals(count: int) -> int:
    import builtins
    import time

    deadline = time.monotonic() + 10
    while len(builtins.came) < count and time.monotonic() < deadline:  # type: ignore[attr-defined]
        signal.sigtimedwait([signal.SIGUSR2], 0.05)
    return len(builtins.came)  # type: ignore[attr-defined]


def test_a_guest_acts_on_it_by_its_cluster_file(runtime_directory: Path) -> None:
    owner = Cluster(n=1)
    with owner as rc:
        assert Path(owner.cluster_file).stat().st_mode & 0o777 == 0o600
        guest = Cluster.from_file(owner.cluster_file)
        assert guest.is_running()
        assert (guest.name, guest.engines, guest.controller) == (owner.name, owner.engines, owner.controller)
        guest.start_engines_sync(1)
        guest.stop_engine_sync(0)
        with guest.connect_client_sync() as other:
            other.wait_for_engines(1, timeout=20)
            assert other.ids == [1]
        assert rc.session.wait_until(lambda: rc.ids == [1], 20)
        guest.stop_cluster_sync()
        assert not owner.is_running()
    assert list(runtime_directory.iterdir()) == []


def test_the_file_follows_the_cluster(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    cluster = Cluster(n=1, cluster_file=str(path))
    cluster.start_controller_sync()
    assert Cluster.from_file(path).engines == {}
    set_id = cluster.start_engines_sync(1)
    assert Cluster.from_file(path).engines == {set_id: EngineSet(set_id, (0,))}
    cluster.stop_cluster_sync()
    assert not path.exists()
    with pytest.raises(FileNotFoundError, match=r"mine\.json"):
        Cluster.from_file(path)


def test_the_clusters_of_this_user_as_objects(runtime_directory: Path) -> None:
    manager = ClusterManager()
    key, cluster = manager.new_cluster(n=1)
    with cluster as rc:
        others = ClusterManager()
        assert list(others.load_clusters()) == [key]
        assert others.get_cluster(key).is_running()
        assert others.load_clusters(profile="nobody") == {key: others.get_cluster(key)}
        with pytest.raises(ValueError, match=f"these clusters run: {key}"):
            clean_cluster_files()
        assert rc.ids == [0]
        assert clean_cluster_files(force=True) == [key]
        assert not cluster.is_running()
        assert others.load_clusters() == {}
    assert list(runtime_directory.iterdir()) == []


@pytest.mark.parametrize("startup", ["started = 42", Path("begin.py")])
def test_code_that_engines_begin_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, startup: str | Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("begin.py").write_text("started = 42\n")
    with Cluster(n=1, startup=startup) as rc:
        assert rc[0].apply_sync(lambda: started) == 42  # type: ignore[name-defined]  # noqa: F821


def test_ipythons_own_startup_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    directory = tmp_path / "profile_default" / "startup"
    directory.mkdir(parents=True)
    (directory / "00-mine.py").write_text("started = 42\n")
    with Cluster(n=1, run_startup=True, startup="started += 1") as rc:
        assert rc[0].apply_sync(lambda: started) == 43  # type: ignore[name-defined]  # noqa: F821
    (directory / "01-bad.py").write_text("1 / 0\n")
    with pytest.raises(ipp.EngineError, match="its startup code failed"):
        Cluster(n=1, run_startup=True).start_and_connect_sync()
    with Cluster(n=1) as rc:
        assert rc[0].execute("import IPython; 'started' in globals()", silent=False).get().data == {
            "text/plain": "False"
        }


def test_engines_that_die_while_they_start(runtime_directory: Path) -> None:
    with pytest.raises(ipp.EngineError, match=r"engines of the cluster '.*' died while they were starting"):
        Cluster(n=1, startup="import os; os._exit(3)").start_and_connect_sync()
    assert list(runtime_directory.iterdir()) == []


def test_a_controller_alone_takes_engines_later() -> None:
    cluster = Cluster()
    cluster.start_controller_sync()
    with cluster.connect_client_sync() as rc:
        assert rc.ids == []
        cluster.start_engines_sync(1)
        rc.wait_for_engines(1, timeout=20)
    cluster.stop_controller_sync()
    assert not cluster.is_running()


def test_a_named_cluster_keeps_history_and_logs_and_starts_again(runtime_directory: Path) -> None:
    for _ in range(2):
        with Cluster(n=1, name="kept") as rc:
            assert rc[0].apply_sync(lambda: 1) == 1
        left = {str(path.relative_to(runtime_directory)) for path in runtime_directory.rglob("*")}
        assert {"kept/history.sqlite", "kept/logs/controller.log", "kept/logs/host.log"} <= left
        assert not [name for name in left if name.endswith((".json", ".ipc", "lock", "proof", "engines"))]
    shutil.rmtree(runtime_directory / "kept")


def test_a_name_is_given_once(runtime_directory: Path) -> None:
    with Cluster(n=1, name="mine") as rc:
        other = Cluster(n=1, name="mine")
        with pytest.raises(ipp.ClusterAlreadyRunning, match="a cluster named 'mine' is already running"):
            other.start_cluster_sync()
        with pytest.raises(ipp.ClusterAlreadyRunning):
            rc.cluster.start_cluster_sync()
        assert rc[0].apply_sync(lambda: 1) == 1
    shutil.rmtree(runtime_directory / "mine")


def test_from_a_thread_that_ends() -> None:
    cluster = Cluster(n=1)
    starter = threading.Thread(target=cluster.start_cluster_sync)
    starter.start()
    starter.join(30)
    with cluster.connect_client_sync() as rc:
        rc.wait_for_engines(1, timeout=20)
        assert rc[0].apply_sync(lambda: 1) == 1
    cluster.stop_cluster_sync()


def test_engines_inherit_environment_directory_and_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside_the_script.py").write_text("def answer():\n    return 42\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("ENGINERY_TEST_INHERITED", "yes")
    import beside_the_script  # type: ignore[import-not-found]

    with Cluster(n=1, env={"ENGINERY_TEST_CHANGED": "too"}, cwd=tmp_path) as rc:
        engine = rc[0]
        names = ("ENGINERY_TEST_INHERITED", "ENGINERY_TEST_CHANGED")
        assert engine.apply_sync(lambda names: [os.environ.get(name) for name in names], names) == [
            "yes",
            "too",
        ]
        assert engine.apply_sync(os.getcwd) == str(tmp_path)
        assert engine.apply_sync(beside_the_script.answer) == 42


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_that_is_taken(taken_port: int, runtime_directory: Path) -> None:
    with pytest.raises(ipp.LaunchError, match=f"port {taken_port} of 127.0.0.1 cannot be bound"):
        Cluster(n=1, port=taken_port).start_cluster_sync()
    assert list(runtime_directory.iterdir()) == []


def test_a_directory_that_is_not_there(tmp_path: Path, runtime_directory: Path) -> None:
    with pytest.raises(ipp.LaunchError, match="No such file or directory"):
        Cluster(n=1, cwd=tmp_path / "gone").start_cluster_sync()
    assert list(runtime_directory.iterdir()) == []


def test_an_interpreter_that_fails_is_quoted(runtime_directory: Path) -> None:
    with pytest.raises(ipp.LaunchError, match="its host exited with code 1") as caught:
        Cluster(n=1, env={"PYTHONHOME": "/nowhere"}).start_cluster_sync()
    assert "sys.prefix = '/nowhere'" in caught.value.output
    assert list(runtime_directory.iterdir()) == []


def test_a_script_without_a_main_guard_that_never_stops(runtime_directory: Path) -> None:
    result = run_script(
        "import enginery as ipp\n"
        "rc = ipp.Cluster(n=2).start_and_connect_sync()\n"
        "print(rc[:].apply_sync(lambda: 1))\n"
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "[1, 1]\n", "")
    assert list(runtime_directory.iterdir()) == []


def test_a_forked_child_that_ends_takes_nothing_along(runtime_directory: Path) -> None:
    result = run_script(
        "import os, sys, enginery as ipp\n"
        "with ipp.Cluster(n=1) as rc:\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        sys.exit(5)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "    print(rc[0].apply_sync(lambda: 'here'))\n",
        warnings="error::ResourceWarning",
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "5\nhere\n", "")
    assert list(runtime_directory.iterdir()) == []


def test_ctrl_c_is_for_the_users_code() -> None:
    result = run_script(
        "import os, signal, enginery as ipp\n"
        "os.setpgid(0, 0)\n"
        "with ipp.Cluster(n=1) as rc:\n"
        "    try:\n"
        "        os.killpg(0, signal.SIGINT)\n"
        "        signal.pause()\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted', rc[0].apply_sync(lambda: 'not me'))\n"
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "interrupted not me\n", "")


def test_the_owner_is_killed(runtime_directory: Path) -> None:
    script = (
        "import sys, enginery as ipp\n"
        "rc = ipp.Cluster(n=2).start_and_connect_sync()\n"
        "print(rc.name, flush=True)\n"
        "sys.stdin.read()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        name = owner.stdout.readline().strip()
        members = processes_of(name)
        assert len(members) == (5 if start_method_of_this_run() == "fork" else 4)
        owner.kill()
    _, left = psutil.wait_procs(members, timeout=END_S)
    assert left == []
    assert list(runtime_directory.iterdir()) == []


def test_a_detached_cluster_outlives_its_process(runtime_directory: Path) -> None:
    result = run_script(
        "import enginery as ipp\n"
        "cluster = ipp.Cluster(n=1, detached=True).start_cluster_sync()\n"
        "print(cluster.name)\n"
    )
    assert (result.returncode, result.stderr) == (0, "")
    name = result.stdout.strip()
    members = processes_of(name)
    with ipp.Client(name) as rc:
        rc.wait_for_engines(1, timeout=20)
        assert rc[0].apply_sync(lambda: 1) == 1
        rc.shutdown(hub=True)
    _, left = psutil.wait_procs(members, timeout=END_S)
    assert left == []
    assert list(runtime_directory.iterdir()) == []


def test_a_controller_that_does_not_answer_is_ended_all_the_same(
    runtime_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enginery.cluster.cluster.STOP_REQUEST_TIMEOUT_S", 0.3)
    cluster = Cluster(n=1)
    cluster.start_cluster_sync()
    (controller,) = [p for p in processes_of(cluster.name) if "controller" in " ".join(p.cmdline())]
    controller.send_signal(signal.SIGSTOP)
    cluster.stop_cluster_sync()
    assert not controller.is_running()
    assert list(runtime_directory.iterdir()) == []
