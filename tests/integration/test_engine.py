"""Engines of a real cluster: what tasks print, signals, forks, and what two big buffers are to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import enginery as ipp
from enginery.ids import EngineKey
from enginery.protocol.specs import STARTUP_FAILED, EngineSpec

PATIENCE_S = 20.0
SURROGATE = "x\udcff"
ESCAPED = "x\\udcff"


@pytest.fixture(scope="module")
def rc() -> Iterator[ipp.Client]:
    with ipp.Cluster(n=2) as client:
        yield client


@pytest.fixture
def engine(rc: ipp.Client) -> ipp.DirectView:
    return rc[0]


def printed(ar: ipp.AsyncResult, text: str, stream: str = "stdout") -> bool:
    """Whether all of the text has come; it may come after the result."""
    session = ar._session
    return session.wait_until(lambda: len(getattr(ar, stream)) >= len(text), PATIENCE_S) and (
        getattr(ar, stream) == text
    )


# ---------------------------------------------------------------- what tasks print


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_lone_surrogate_is_printed_escaped(engine: ipp.DirectView, stream: str) -> None:
    ar = engine.apply_async(lambda text, stream: print(text, file=getattr(sys, stream)), SURROGATE, stream)
    ar.get(PATIENCE_S)
    assert printed(ar, ESCAPED + "\n", stream)
    assert engine.apply_sync(abs, -1) == 1


class Gate:
    """Holds a task until the test opens it."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self._file = os.open(path, os.O_RDWR)  # so that neither side waits for the other to open it

    def open(self) -> None:
        os.write(self._file, b"go")

    def close(self) -> None:
        os.close(self._file)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()
    gate.close()


def test_a_lone_surrogate_and_much_text_in_the_middle_of_a_task(engine: ipp.DirectView, gate: Gate) -> None:
    """Text that the control thread sends: it lives on, and so does what it is there for."""

    def task(gate: str, text: str, big: str) -> str:
        print(text, flush=True)
        with open(gate, "rb", buffering=0) as opened:
            opened.read(2)
        print(big)
        return "ended"

    ar = engine.apply_async(task, gate.path, SURROGATE, "é\ud800" * 50_000)
    assert printed(ar, ESCAPED + "\n")
    assert not ar.done()
    gate.open()
    assert ar.get(PATIENCE_S) == "ended"
    assert printed(ar, f"{ESCAPED}\n" + "é\\ud800" * 50_000 + "\n")
    later = engine.apply_async(print, "y" * 200_000)
    later.get(PATIENCE_S)
    assert printed(later, "y" * 200_000 + "\n")


def test_names_and_labels_with_surrogates(rc: ipp.Client) -> None:
    def function() -> int:
        return 3

    function.__name__ = function.__qualname__ = "f\udcff"
    view = rc.load_balanced_view(label="night \udcff")
    ar = view.apply_async(function)
    assert ar.get(PATIENCE_S) == 3
    assert view.map_sync(abs, [-1, -2]) == [1, 2]
    assert rc[:].apply_sync(abs, -1) == [1, 1]


def test_many_tasks_that_print_much_that_is_not_ascii(rc: ipp.Client) -> None:
    """What goes with results: sixty of them are far above what one message may hold."""
    text = "€" * 30_000
    results = [rc.load_balanced_view().apply_async(print, text) for _ in range(60)]
    for ar in results:
        ar.get(PATIENCE_S)
        assert printed(ar, text + "\n")
    assert rc[:].apply_sync(abs, -1) == [1, 1]


def test_an_error_whose_text_utf_8_cannot_say(engine: ipp.DirectView) -> None:
    def task() -> None:
        raise ValueError(SURROGATE_TEXT)  # type: ignore[name-defined]  # noqa: F821

    engine.push({"SURROGATE_TEXT": SURROGATE}).get(PATIENCE_S)
    with pytest.raises(ValueError) as caught:
        engine.apply_sync(task)
    assert "udcff" in ascii(caught.value.args[0])
    assert engine["SURROGATE_TEXT"] == SURROGATE
    assert engine.apply_sync(abs, -1) == 1


def test_a_child_that_a_task_forks_may_print(engine: ipp.DirectView) -> None:
    def task() -> tuple[int, int]:
        import os
        import sys

        child = os.fork()
        if child == 0:
            print("child" * 1000)
            print("child", file=sys.stderr)
            sys.stdout.flush()
            os._exit(3)
        print("parent")
        return os.getpid(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    for _ in range(3):
        ar = engine.apply_async(task)
        pid, code = ar.get(PATIENCE_S)
        assert (pid, code) == (engine_pid(engine.client, 0), 3)
        assert ar.wait_for_output(PATIENCE_S)
        assert sorted(ar.stdout.splitlines()) == ["child" * 1000, "parent"]
        assert ar.stderr == "child\n"
    assert engine.apply_sync(abs, -1) == 1


def test_a_thread_of_a_task_may_print_after_it(engine: ipp.DirectView) -> None:
    engine.execute(
        "import threading\n"
        "_go = threading.Event()\n"
        "_late = threading.Thread(target=lambda: (_go.wait(20), print('late', 'x' * 10)))\n"
        "_late.start()"
    ).get(PATIENCE_S)
    ar = engine.execute("print('mine'); _go.set(); _late.join(20)")
    ar.get(PATIENCE_S)
    assert ar.stdout == "mine\n", "it is not this task's thread"


def test_the_process_knows_its_engine_and_its_cluster(rc: ipp.Client) -> None:
    """What a task starts can become a client, and say who it is."""
    names = ["ENGINERY_ENGINE_ID", "ENGINERY_CONNECTION_FILE"]
    found = rc[:].apply_sync(lambda names: [os.environ[name] for name in names], names)
    assert [engine for engine, _ in found] == ["0", "1"]
    assert {path for _, path in found} == {str(rc.connection_file)}


@pytest.mark.parametrize("text", ["exit()", "quit()", "import sys; sys.exit(3)"])
def test_an_exit_is_a_failed_task(rc: ipp.Client, engine: ipp.DirectView, text: str) -> None:
    pid = engine_pid(rc, 0)
    with pytest.raises(ipp.RemoteError) as caught:
        engine.execute(text).get(PATIENCE_S)
    assert (caught.value.ename, caught.value.engine) == ("SystemExit", 0)
    assert engine.apply_sync(os.getpid) == pid


def test_values_that_a_task_publishes_while_it_runs(engine: ipp.DirectView, gate: Gate) -> None:
    def task(gate: str) -> str:
        from enginery.engine.publishing import publish_data

        publish_data({"step": 1, "big": b"x" * 900_000})
        with open(gate, "rb", buffering=0) as opened:
            opened.read(2)
        for step in range(2, 100):
            publish_data({"step": step})
        return "ended"

    ar = engine.apply_async(task, gate.path)
    assert ar._session.wait_until(lambda: len(ar.data) == 2, PATIENCE_S)
    assert (ar.done(), ar.data) == (False, {"step": 1, "big": b"x" * 900_000})
    gate.open()
    assert ar.get(PATIENCE_S) == "ended"
    assert ar._session.wait_until(lambda: ar.data["step"] == 99, PATIENCE_S)


# ---------------------------------------------------------------- startup


def test_an_engine_whose_startup_fails_ends_and_says_why(tmp_path: Path) -> None:
    script = tmp_path / "start.py"
    script.write_text("print('begun')\nno_such_name\n")
    with ipp.Cluster(n=1) as rc:
        spec = EngineSpec(
            cluster="c",
            connection_file=str(Path(rc.connection_file).with_name("engine.json")),
            key=EngineKey("k"),
            startup_script=str(script),
        )
        command = [sys.executable, "-P", "-m", "enginery", "engine", "c", "--spec", spec.to_json()]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert rc[0].apply_sync(abs, -1) == 1
    assert (ended.returncode, ended.stdout) == (STARTUP_FAILED, "begun\n")
    assert f'File "{script}", line 2, in <module>' in ended.stderr
    assert "NameError: name 'no_such_name' is not defined" in ended.stderr
    assert str(Path(ipp.__file__).parent) not in ended.stderr


def test_an_engine_that_nobody_supervises_leaves_text_past_python_to_who_started_it() -> None:
    with ipp.Cluster(n=1) as rc:
        path = str(Path(rc.connection_file).with_name("engine.json"))
        spec = EngineSpec(cluster="c", connection_file=path, key=EngineKey("k"), parent_pid=os.getpid())
        command = [sys.executable, "-P", "-m", "enginery", "engine", "c", "--spec", spec.to_json()]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            rc.wait_for_engines(2, timeout=PATIENCE_S)
            ar = rc[1].execute("import os; print('python'); os.system('echo past it'); print('end')")
            assert ar.wait_for_output(PATIENCE_S)
            assert ar.stdout == "python\nend\n"
            with pytest.raises(EOFError, match="a task has no standard input"):
                rc[1].execute("input()").get(PATIENCE_S)
            assert rc[1].apply_sync(os.read, 0, 10) == b"", "nor has C code, though the process has one"
            rc[1].shutdown(block=True)
            assert process.wait(PATIENCE_S) == 0
            assert process.stdout is not None
            assert process.stdout.read() == "past it\n"


# ---------------------------------------------------------------- signals


def engine_pid(rc: ipp.Client, engine: int) -> int:
    return rc.session.engines()[engine].pid  # type: ignore[index]


def test_an_idle_engine_ignores_an_interrupt(rc: ipp.Client, engine: ipp.DirectView) -> None:
    pid = engine_pid(rc, 0)
    for _ in range(5):
        os.kill(pid, signal.SIGINT)
        assert engine.apply_sync(os.getpid) == pid


def test_an_interrupt_is_the_running_tasks(rc: ipp.Client, engine: ipp.DirectView, gate: Gate) -> None:
    def task(gate: str) -> None:
        print("begun")
        with open(gate, "rb", buffering=0) as opened:
            opened.read(2)

    engine.push({"kept": 5}).get(PATIENCE_S)
    ar, behind = engine.apply_async(task, gate.path), engine.apply_async(abs, -2)
    assert printed(ar, "begun\n")
    os.kill(engine_pid(rc, 0), signal.SIGINT)
    with pytest.raises(ipp.RemoteError) as caught:
        ar.get(PATIENCE_S)
    assert caught.value.ename == "KeyboardInterrupt"
    assert not isinstance(caught.value, KeyboardInterrupt), "nobody has interrupted this process"
    assert behind.get(PATIENCE_S) == 2
    assert engine["kept"] == 5


def test_a_signal_handler_of_a_task_may_print(engine: ipp.DirectView) -> None:
    def task() -> int:
        import signal

        seen = []

        def handler(signum: int, frame: object) -> None:
            seen.append(1)
            print("signal")

        before = signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        while len(seen) < 200:
            print("task")
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        return len(seen)

    ar = engine.apply_async(task)
    handled = ar.get(PATIENCE_S)
    assert ar._session.wait_until(lambda: ar.stdout.count("signal") == handled, PATIENCE_S)
    # Between tasks the handler goes on in the middle of everything the engine does.
    engine.execute(
        "import signal\n"
        "signal.signal(signal.SIGALRM, lambda *_: print(end='.'))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)"
    ).get(PATIENCE_S)
    results = [engine.apply_async(print, "z" * 1000) for _ in range(300)]
    assert all(result.get(PATIENCE_S) is None for result in results)
    engine.execute("signal.setitimer(signal.ITIMER_REAL, 0)").get(PATIENCE_S)
    assert all(result.stdout.replace(".", "").startswith("z") for result in results)


def test_sources_of_executed_texts_do_not_pile_up(engine: ipp.DirectView) -> None:
    results = [engine.execute("x = 1") for _ in range(1500)]
    assert all(result.get(PATIENCE_S).data == {} for result in results)
    engine.execute("import linecache").get(PATIENCE_S)
    assert engine["len([name for name in linecache.cache if not name.endswith('.py')])"] <= 1010


# ---------------------------------------------------------------- big buffers


def test_two_big_buffers_in_one_call_and_in_its_result(rc: ipp.Client, engine: ipp.DirectView) -> None:
    size = 20 << 20
    first, second = b"a" * size, b"b" * size
    lengths, back = engine.apply_sync(lambda a, b: ((len(a), len(b)), [b, a]), first, second)
    assert lengths == (size, size)
    assert back == [second, first]
    both = rc[:].apply_async(lambda a: a[-1], first)
    assert both.get(PATIENCE_S) == [ord("a")] * 2


def test_threads_of_a_client_send_big_buffers_at_once(rc: ipp.Client) -> None:
    view, found = rc.load_balanced_view(), []

    def call(number: int) -> None:
        data = bytes([number]) * (3 << 20)
        found.append(view.apply_sync(lambda data: data[::-1], data) == data)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert found == [True] * 6
