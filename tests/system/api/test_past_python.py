"""What C code and processes write reaches the task's client: tagged, in its place, counted, and remembered.

Once with forked engines, once with spawned ones, whose supervisor is a thread of their host.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest

import enginery as ipp
from tests.system.api.held import Clusters, Gate, from_main, until_begun

PATIENCE_S = 20.0
CLUSTERS: Clusters = {
    "forked": {"n": 2, "start_method": "fork"},
    "spawned": {"n": 2, "start_method": "spawn"},
}
LINES = 100_000


def recorded(rc: ipp.Client, ar: ipp.AsyncResult) -> tuple[str, str]:
    """What another client is told of the task."""
    with ipp.Client(rc.connection_file) as other:
        later = other.get_result(ar.msg_ids[0])
        assert later.wait_for_output(PATIENCE_S)
        return later.stdout, later.stderr


def written(ar: ipp.AsyncResult) -> tuple[str, str]:
    assert ar.wait_for_output(PATIENCE_S)
    return ar.stdout, ar.stderr


def holds_the_gil(size: int) -> None:
    """C code that writes more than a pipe holds, while it has the GIL."""
    import ctypes

    ctypes.PyDLL(None).write(1, b"x" * (size - 1) + b"\n", size)


# Each writes "out\n", and nothing else.
WRITERS: dict[str, str] = {
    "os.system": "import os; os.system('echo out')",
    "a subprocess": "import subprocess; subprocess.run(['echo', 'out'], check=True)",
    "os.write": "import os; os.write(1, b'out\\n')",
    "printf": "import ctypes; ctypes.CDLL(None).printf(b'out\\n')",
    "printf without end of line": "import ctypes; c = ctypes.CDLL(None); c.putchar(111); c.printf(b'ut\\n')",
    "the interpreter's own stream": "import sys; print('out', file=sys.__stdout__)",
    "an inherited stream": "import subprocess, sys; subprocess.run(['echo', 'out'], stdout=sys.stdout)",
    "a forked child": "import os\nif os.fork() == 0:\n    print('out')\n    os._exit(0)\nos.wait()",
    "multiprocessing": (
        "import multiprocessing\n"
        "child = multiprocessing.get_context('fork').Process(target=print, args=('out',))\n"
        "child.start()\nchild.join()"
    ),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_whoever_writes(rc: ipp.Client, writer: str) -> None:
    ar = rc[0].execute(WRITERS[writer])
    ar.get(PATIENCE_S)
    assert written(ar) == ("out\n", "")
    assert recorded(rc, ar) == ("out\n", "")
    assert rc.output(ar.msg_ids[0]) == "out\n"
    assert written(rc[0].execute("print('next')")) == ("next\n", "")


def test_both_streams_in_python_and_past_it_keep_their_order(rc: ipp.Client) -> None:
    def alternate() -> None:
        import os
        import sys

        for number in range(3):
            print("p", number)
            os.system(f"echo s {number}; echo e {number} >&2")
            os.write(1, f"w {number}\n".encode())
            print("q", number, file=sys.stderr)

    expected = (
        "".join(f"p {number}\ns {number}\nw {number}\n" for number in range(3)),
        "".join(f"e {number}\nq {number}\n" for number in range(3)),
    )
    for _ in range(10):
        ar = rc[0].apply_async(alternate)
        assert written(ar) == expected
    assert recorded(rc, ar) == expected


def test_it_is_shown_while_the_task_runs(rc: ipp.Client, gate: Gate) -> None:
    def hold(path: str) -> None:
        import fcntl
        import os

        os.write(1, b"begun\n")
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH)

    results = [view.apply_async(hold, gate.path) for view in (rc[0], rc[1])]
    until_begun(*results)
    assert not any(ar.done() for ar in results)
    assert rc.output(results[0].msg_ids[0]) == "begun\n"
    gate.open()
    assert [written(ar) for ar in results] == [("begun\n", "")] * 2


def test_tasks_that_follow_each_other_are_told_apart(rc: ipp.Client) -> None:
    """They end faster than anybody can look whose text it is."""

    def speak(number: int) -> None:
        import os

        if number % 3:
            os.write(number % 3, b"%d\n" % number)
        if number % 5 == 0:
            print("python", number)

    results = [rc[0].apply_async(speak, number) for number in range(300)]
    for number, ar in enumerate(results):
        texts = {1: "", 2: ""}
        texts[number % 3] = f"{number}\n"
        python = f"python {number}\n" if number % 5 == 0 else ""
        assert written(ar) == (texts[1] + python, texts[2]), number


def test_c_code_that_holds_the_gil_fills_no_pipe(rc: ipp.Client) -> None:
    size = 1 << 20
    ar = rc[0].apply_async(holds_the_gil, size)
    assert written(ar) == ("x" * (size - 1) + "\n", "")


def test_many_lines_of_a_process(rc: ipp.Client) -> None:
    program = f"for number in range({LINES}): print(number)"
    ar = rc[0].apply_async(subprocess.run, [sys.executable, "-c", program], check=True)
    assert rc[1].apply_sync(abs, -1) == 1
    assert written(ar) == ("".join(f"{number}\n" for number in range(LINES)), "")


def test_a_process_that_outlives_its_task(rc: ipp.Client, gate: Gate) -> None:
    """Its text comes when the result is long there, and is kept with it."""

    def leave(program: list[str]) -> None:
        import subprocess

        print("python")
        subprocess.Popen(program)

    program = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_SH); print('late')"
    ar = rc[0].apply_async(leave, [sys.executable, "-c", program, gate.path])
    assert written(ar) == ("python\n", "")
    gate.open()
    assert ar._session.wait_until(lambda: ar.stdout == "python\nlate\n", PATIENCE_S)
    assert recorded(rc, ar) == ("python\nlate\n", "")
    assert written(rc[0].execute("print('next')")) == ("next\n", "")


def test_what_nobody_can_take_is_left_out_and_counted(rc: ipp.Client) -> None:
    """The engine is not held up, the other one notices nothing, and the next task has its own text."""
    size = 40 << 20
    program = f"import sys\nfor _ in range(40): sys.stdout.write('x' * {size // 40})"
    ar = rc[0].apply_async(subprocess.run, [sys.executable, "-c", program], check=True)
    assert written(rc[1].execute("print('other')")) == ("other\n", "")
    text, _ = written(ar)
    counts = [int(number.replace(",", "")) for number in re.findall(r"\[([\d,]+) characters of this", text)]
    assert counts
    if "[of this text only the last 1 MiB are kept]" not in text:
        assert text.count("x") + sum(counts) == size
    assert "characters of this output were left out: an engine may write 4 MiB a second past Python]" in text
    assert written(rc[0].execute("import os; os.system('echo next')")) == ("next\n", "")


def test_an_interrupted_task_keeps_its_text(rc: ipp.Client) -> None:
    def fail() -> None:
        import os

        os.system("echo before")
        raise ValueError("no")

    ar = rc[0].apply_async(fail)
    assert written(ar) == ("before\n", "")
    with pytest.raises(ValueError, match="no"):
        ar.get()


# ---------------------------------------------------------------- what is done to the descriptors

SPOILERS: dict[str, str] = {
    "closed": "import os; os.close(1); os.close(2)",
    "closed by their streams": "import sys; sys.__stdout__.close(); sys.stdout.close(); sys.stderr.close()",
    "sent to nowhere": "import os; n = os.open(os.devnull, os.O_WRONLY); os.dup2(n, 1); os.dup2(n, 2)",
    "into each other": "import os; os.dup2(1, 2)",
    "closed, and a task that fails": "import os; os.close(1); os.close(2); 1 / 0",
}


@pytest.mark.parametrize("spoiler", SPOILERS)
def test_the_next_task_finds_them_as_they_were(rc: ipp.Client, spoiler: str) -> None:
    ar = rc[0].execute(SPOILERS[spoiler])
    ar.wait(PATIENCE_S)
    after = rc[0].execute("import os, sys; print('a'); os.system('echo b; echo c >&2')")
    assert written(after) == ("a\nb\n", "c\n")
    assert rc[0].apply_sync(pow, 2, 3) == 8


# ---------------------------------------------------------------- death

DEATHS: dict[str, tuple[str, str, str]] = {
    # How, what is in the error, and what the task has written to stderr at least.
    "SIGKILL": ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL", ""),
    "os._exit": ("import os; os._exit(3)", "exited with code 3", ""),
    "a segmentation fault": (
        "import ctypes; ctypes.string_at(0)",
        "segmentation fault (SIGSEGV)",
        "Fatal Python error: Segmentation fault",
    ),
    "abort": ("import os; os.abort()", "aborted (SIGABRT)", "Fatal Python error: Aborted"),
}  # fmt: skip
DYING = """
import os, sys
print("python")
os.write(1, b"past it\\n")
print("last", flush=True)
sys.stderr.write("no end of line")
{death}
"""


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_last_lines_of_an_engine_that_died(death: str, method: str) -> None:
    code, cause, trace = DEATHS[death]
    with ipp.Cluster(n=1, start_method=method) as rc:
        first = rc[0].execute("print('earlier')", block=True)
        ar = rc[0].execute(DYING.format(death=code))
        with pytest.raises(ipp.EngineError) as caught:
            ar.get(PATIENCE_S)
        text = str(caught.value)
        for line in (cause, "python", "past it", "last", "no end of line", trace):
            assert line in text
        assert "earlier" not in text
        assert ar.stdout == "python\npast it\nlast\n"
        assert ar.stderr.startswith("no end of line")
        assert trace in ar.stderr
        assert recorded(rc, ar) == (ar.stdout, ar.stderr)
        assert rc.output(ar.msg_ids[0]) == ar.stdout + ar.stderr
        assert first.stdout == "earlier\n"
        log = os.path.join(os.path.dirname(rc.connection_file), "logs", "engine-0.log")
        with open(log) as file:
            logged = file.read()
        assert "past it\n" in logged
        assert "python\nlast\nno end of line\n" in logged
        assert trace in logged


def test_a_map_that_died_says_what_it_wrote() -> None:
    def die(number: int) -> None:
        import os

        print("item", number, flush=True)
        if number == 3:
            os._exit(1)

    with ipp.Cluster(n=1) as rc:
        ar = rc[0].map_async(die, range(5))
        with pytest.raises(ipp.EngineError, match="item 3"):
            ar.get(PATIENCE_S)


def test_somebody_who_holds_the_pipes_hides_no_death(gate: Gate) -> None:
    """A process that the task has started, in a session of its own, outlives the engine."""

    def die(program: list[str]) -> None:
        import os
        import subprocess

        subprocess.Popen(program, start_new_session=True)
        os._exit(1)

    program = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_SH); print('too late')"
    with ipp.Cluster(n=1) as rc:
        ar = rc[0].apply_async(die, [sys.executable, "-c", program, gate.path])
        with pytest.raises(ipp.EngineError, match="exited with code 1"):
            ar.get(PATIENCE_S)
        gate.open()


# ---------------------------------------------------------------- programs that need a terminal, or ask


@pytest.mark.skipif(shutil.which("cat") is None, reason="there is no cat")
def test_processes_find_no_input(rc: ipp.Client) -> None:
    ar = rc[0].apply_async(subprocess.run, ["cat"], check=True, timeout=PATIENCE_S)
    ar.get(PATIENCE_S)
    assert written(ar) == ("", "")


Task = Callable[[], object]


@pytest.mark.parametrize(
    "source",
    [
        "def f(): return input('name? ')",
        "def f():\n    import sys\n    return sys.stdin.read()",
        "def f():\n    import sys\n    return list(sys.stdin)",
        "def f():\n    import getpass\n    return getpass.getpass()",
    ],
)
def test_who_asks_is_told_that_nobody_answers(rc: ipp.Client, source: str) -> None:
    task: Task = from_main(source)
    ar = rc[0].apply_async(task)
    with pytest.raises(EOFError, match="a task has no standard input, and nobody to ask"):
        ar.get(PATIENCE_S)
    assert rc[0].apply_sync(pow, 2, 3) == 8
