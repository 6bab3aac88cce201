"""Tasks that misbehave: each ends with its own output, or its own named error, and the next one is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import enginery as ipp
from tests.system.api.held import Gate, from_main

PATIENCE_S = 30.0


@pytest.fixture(autouse=True)
def the_engine_goes_on(rc: ipp.Client) -> Iterator[None]:
    """In the same process, with the right result, and with nobody else's text."""
    (before,) = rc[[0]].apply_sync(process)
    yield
    (after,) = rc[[0]].apply_sync(process)
    assert after == before
    ar = rc[0].execute("import sys, os\nprint('next')\nprint('err', file=sys.stderr)\nos.system('echo past')")
    assert written(ar) == ("next\npast\n", "err\n")
    assert rc.ids == [0, 1]
    rc.clear(block=True)


def process() -> tuple[int, int]:
    import os

    return os.getpid(), 6 * 7


def written(ar: Any) -> tuple[str, str]:
    assert ar.wait_for_output(PATIENCE_S)
    return ar.stdout, ar.stderr


def failure(ar: Any) -> Any:
    with pytest.raises(ipp.RemoteError) as caught:
        ar.get(PATIENCE_S)
    return caught.value


# ---------------------------------------------------------------- exits and texts that are none

EXITS = [
    "exit()",
    "quit()",
    "exit(3)",
    "import sys; sys.exit()",
    "import sys; sys.exit('why')",
    "raise SystemExit(7)",
]


@pytest.mark.parametrize("text", EXITS)
@pytest.mark.parametrize("silent", [True, False])
def test_exits_in_a_cell(rc: ipp.Client, text: str, silent: bool) -> None:
    ar = rc[0].execute(f"print('before')\n{text}\nprint('not reached')", silent=silent)
    assert failure(ar).ename == "SystemExit"
    assert written(ar) == ("before\n", "")


@pytest.mark.parametrize("text", EXITS)
def test_exits_in_a_task(rc: ipp.Client, text: str) -> None:
    task: Callable[[], object] = from_main(f"def f():\n    print('before')\n    {text}")
    ar = rc[0].apply_async(task)
    assert failure(ar).ename == "SystemExit"
    assert written(ar) == ("before\n", "")


@pytest.mark.parametrize(
    "text", ["def f(:", "x =", "print 'a'", "\0", "'''open", "é€ = (", "%%nosuchmagic\nx"]
)
@pytest.mark.parametrize("silent", [True, False])
def test_texts_that_do_not_parse(rc: ipp.Client, text: str, silent: bool) -> None:
    error = failure(rc[0].execute(text, silent=silent))
    assert error.ename in ("SyntaxError", "IndentationError", "ValueError", "UsageError")
    assert len(str(error)) > len(error.ename)


def test_recursion_without_end(rc: ipp.Client) -> None:
    ar = rc[0].execute("def f(n):\n    print(n)\n    return f(n + 1)\nf(0)")
    assert failure(ar).ename == "RecursionError"
    stdout, _ = written(ar)
    lines = stdout.splitlines()
    assert lines == [str(number) for number in range(len(lines))]
    assert len(lines) > 100
    display = "class Deep:\n    def __repr__(self): return repr(self)\n"
    ar = rc[0].execute(f"{display}print('before')\nDeep()", silent=False)
    ar.wait(PATIENCE_S)
    stdout, stderr = written(ar)
    assert stdout == "before\n"
    assert "RecursionError" in stderr + str(ar.exception())


# ---------------------------------------------------------------- streams

REPLACING = {
    "put in their places": "import sys, io\nsys.stdout = sys.stderr = io.StringIO()\nprint('into nowhere')",
    "None": "import sys\nsys.stdout = sys.stderr = sys.stdin = None",
    "deleted": "import sys\ndel sys.stdout, sys.stderr, sys.stdin",
    "closed": "import sys\nsys.stdout.close()\nsys.stderr.close()\nsys.stdin.close()",
    "one that fails": (
        "import sys\nclass Bad:\n    def write(self, text): raise OSError('full')\n"
        "    def flush(self): raise OSError('full')\nsys.stdout = sys.stderr = Bad()"
    ),
    "the originals": "import sys\nsys.stdout, sys.stderr = sys.__stderr__, sys.__stdout__",
}


@pytest.mark.parametrize("how", REPLACING)
@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("silent", [True, False])
def test_streams_that_are_replaced_and_not_put_back(
    rc: ipp.Client, how: str, fails: bool, silent: bool
) -> None:
    text = f"print('before')\n{REPLACING[how]}\n{'1 / 0' if fails else ''}"
    ar = rc[0].execute(text, silent=silent)
    if fails:
        assert failure(ar).ename == "ZeroDivisionError"
    elif how == "deleted":  # the shell itself misses them
        assert ar.exception(PATIENCE_S) is None or failure(ar).ename == "AttributeError"
    else:
        ar.get(PATIENCE_S)
    assert written(ar) == ("before\n", "")


def test_originals_that_are_written_to(rc: ipp.Client) -> None:
    ar = rc[0].execute(
        "import sys\nsys.stdout = sys.__stdout__\nprint('a', flush=True)\nsys.__stderr__.write('b')"
    )
    assert written(ar) == ("a\n", "b")


def test_bytes_and_what_is_no_text(rc: ipp.Client) -> None:
    ar = rc[0].execute(
        "import sys\nprint(b'x', '\\ud800', '\\0', 'é', sep='|')\n"
        "sys.stdout.buffer.write(b'\\xff\\xc3')\nsys.stdout.flush()\n"
        "sys.stdout.reconfigure(encoding='latin-1')"
    )
    assert written(ar) == ("b'x'|\\ud800|\0|é\n\\xff", "")
    error = failure(rc[0].execute("import sys\nsys.stdout.write(b'x')"))
    assert (error.ename, "must be str, not bytes" in str(error)) == ("TypeError", True)


@pytest.mark.parametrize("flush", [True, False])
def test_ten_megabytes_in_one_line(rc: ipp.Client, flush: bool) -> None:
    size = 10 << 20
    ar = rc[0].execute(f"print('é' * {size // 2}, end='', flush={flush})\nprint('x' * {size})")
    assert written(ar) == ("é" * (size // 2) + "x" * size + "\n", "")


def test_lines_that_are_flushed_one_by_one(rc: ipp.Client) -> None:
    ar = rc[0].execute("for number in range(1000): print(number, flush=True)")
    assert written(ar) == ("".join(f"{number}\n" for number in range(1000)), "")


# ---------------------------------------------------------------- displays

BAD_DISPLAYS = {
    "a formatter that raises": "class Bad:\n    def _repr_html_(self): raise ValueError('no html')",
    "a repr that raises": "class Bad:\n    def __repr__(self): raise ValueError('no repr')",
    "a repr that is no text": "class Bad:\n    def __repr__(self): return 7",
    "a bundle that cannot be sent": (
        "import threading\n"
        "class Bad:\n    def _repr_mimebundle_(self, **_): return {'text/x': threading.Lock()}"
    ),
    "a repr that exits": "class Bad:\n    def __repr__(self): raise SystemExit",
}


@pytest.mark.parametrize("kind", BAD_DISPLAYS)
@pytest.mark.parametrize("last", ["display(Bad())", "Bad()"])
def test_displays_that_go_wrong(rc: ipp.Client, kind: str, last: str) -> None:
    ar = rc[0].execute(f"{BAD_DISPLAYS[kind]}\nprint('before')\n{last}", silent=False)
    ar.wait(PATIENCE_S)
    stdout, stderr = written(ar)
    assert stdout == "before\n"
    error = ar.exception()
    said = stderr + str(error or "")
    word = {
        "a formatter that raises": "no html",
        "a repr that raises": "no repr",
        "a repr that is no text": "str",
    }
    assert word.get(kind, "") in said
    assert said, "it is the task's own error, or a traceback among its text"


# ---------------------------------------------------------------- asking


@pytest.mark.parametrize("text", ["input()", "input('name? ')", "import sys; sys.stdin.readline()"])
@pytest.mark.parametrize("silent", [True, False])
def test_who_asks_is_told_that_nobody_answers(rc: ipp.Client, text: str, silent: bool) -> None:
    error = failure(rc[0].execute(text, silent=silent))
    assert error.ename == "EOFError"
    assert "a task has no standard input, and nobody to ask" in str(error)


def test_a_breakpoint_does_not_hang(rc: ipp.Client) -> None:
    ar = rc[0].execute("breakpoint()\nx = 1")
    assert failure(ar).ename in ("BdbQuit", "EOFError")


# ---------------------------------------------------------------- logging, warnings


def test_handlers_that_one_task_makes_and_the_next_ones_use(rc: ipp.Client) -> None:
    first = rc[0].execute(
        "import logging, sys\nlogger = logging.getLogger('mine')\nlogger.setLevel('INFO')\n"
        "logger.addHandler(logging.StreamHandler())\nlogger.addHandler(logging.StreamHandler(sys.stdout))\n"
        "logger.info('one')"
    )
    assert written(first) == ("one\n", "one\n")
    for name in ("two", "three"):
        ar = rc[0].execute(f"logger.info({name!r})")
        assert written(ar) == (f"{name}\n", f"{name}\n")
    assert written(first) == ("one\n", "one\n")
    rc[0].execute("logger.handlers.clear()", block=True)


def test_warnings_and_what_has_no_handler(rc: ipp.Client) -> None:
    ar = rc[0].execute(
        "import warnings, logging\nwarnings.simplefilter('always')\nwarnings.warn('careful')\n"
        "logging.getLogger('nobodys').warning('logged')"
    )
    stdout, stderr = written(ar)
    assert stdout == ""
    assert "UserWarning: careful" in stderr
    assert stderr.endswith("logged\n")


# ---------------------------------------------------------------- what is left running

LEAVE_THREAD = """
def f(path):
    import fcntl, sys, threading
    from IPython.display import display

    def late():
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH)
        print("late")
        print("oh", file=sys.stderr)
        display({"text/plain": "late"}, raw=True)
        raise ValueError("in a thread")

    thread = threading.Thread(target=late)
    thread.start()
    print("early")
    globals()["left"] = thread
"""


def test_threads_that_print_after_their_task(rc: ipp.Client, another: ipp.Client, gate: Gate) -> None:
    """While another task runs, which has its own text."""
    ar = rc[0].apply_async(from_main(LEAVE_THREAD), gate.path)
    assert written(ar) == ("early\n", "")
    running = rc[0].execute("print('mine')\nleft.join()\nprint('still mine')")
    gate.open()
    assert written(running) == ("mine\nstill mine\n", "")

    def has_all() -> bool:
        return "in a thread" in ar.stderr and bool(ar.outputs) and ar.stdout == "early\nlate\n"

    assert ar._session.wait_until(has_all, PATIENCE_S), (ar.stdout, ar.stderr)
    assert ar.stderr.startswith("oh\n")
    later = another.get_result(ar.msg_ids[0])
    assert written(later) == (ar.stdout, ar.stderr)
    assert [output["data"] for output in later.outputs] == [{"text/plain": "late"}]


def test_a_thread_that_prints_when_its_task_is_long_forgotten(rc: ipp.Client, gate: Gate) -> None:
    ar = rc[0].apply_async(from_main(LEAVE_THREAD), gate.path)
    ar.get(PATIENCE_S)
    between = [rc[0].apply_async(pow, number, 2) for number in range(1500)]
    between[-1].wait(PATIENCE_S)
    gate.open()
    assert ar._session.wait_until(lambda: ar.stdout == "early\nlate\n", PATIENCE_S), ar.stdout
    assert [result.stdout for result in between] == [""] * len(between)
    rc[0].execute("left.join()", block=True)
    assert "late\n" in rc.output(ar.msg_ids[0])


def test_coroutines_that_print_after_their_task(rc: ipp.Client) -> None:
    """They go on when the next task awaits."""
    first = rc[0].execute(
        "import asyncio, sys\ngo_on = asyncio.Event()\n"
        "async def late():\n    await go_on.wait()\n    print('late')\n"
        "    await asyncio.to_thread(print, 'later')\n"
        "left = asyncio.create_task(late())\nprint('early')\nawait asyncio.sleep(0)",
        silent=False,
    )
    assert written(first) == ("early\n", "")
    second = rc[0].execute("print('mine')\ngo_on.set()\nawait left\nprint('still mine')", silent=False)
    assert written(second) == ("mine\nstill mine\n", "")
    assert first._session.wait_until(lambda: first.stdout == "early\nlate\nlater\n", PATIENCE_S), first.stdout
    assert rc.output(first.msg_ids[0]) == "early\nlate\nlater\n"


def test_a_pool_that_outlives_its_task(rc: ipp.Client) -> None:
    """What is submitted later says with its context for whom it works; without one it is the pool's maker."""
    first = rc[0].execute(
        "import contextvars\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "pool = ThreadPoolExecutor(1)\npool.submit(print, 'first').result()"
    )
    assert written(first) == ("first\n", "")
    second = rc[0].execute("pool.submit(contextvars.copy_context().run, print, 'second').result()")
    assert written(second) == ("second\n", "")
    third = rc[0].execute("pool.submit(print, 'third').result()\npool.shutdown()")
    assert written(third) == ("", "")
    assert first._session.wait_until(lambda: first.stdout == "first\nthird\n", PATIENCE_S), first.stdout


# ---------------------------------------------------------------- exits, in the middle of more


def test_an_item_of_a_map_that_exits_fails_alone(rc: ipp.Client) -> None:
    def leave_at_three(number: int) -> int:
        import sys

        print("item", number)
        if number == 3:
            sys.exit("enough")
        return number

    for view in (rc[:], rc.load_balanced_view()):
        result = view.map_async(leave_at_three, range(6), return_exceptions=True)
        values = result.get(timeout=PATIENCE_S)
        assert [value for value in values if isinstance(value, int)] == [0, 1, 2, 4, 5]
        assert (values[3].ename, values[3].evalue) == ("SystemExit", "enough")
        assert result.wait_for_output(PATIENCE_S)
        said = "".join(result.stdout if isinstance(result.stdout, list) else [result.stdout])
        assert sorted(said.split("\n"))[1:] == [f"item {number}" for number in range(6)]


def test_a_cell_that_awaits_and_exits(rc: ipp.Client) -> None:
    text = "import asyncio, sys\nprint('before')\nawait asyncio.sleep(0)\nsys.exit(3)"
    ar = rc[0].execute(text, silent=False)
    assert failure(ar).ename == "SystemExit"
    assert written(ar)[0] == "before\n"  # IPython may tell how to leave a shell


def test_a_thread_that_exits_ends_nothing_else(rc: ipp.Client) -> None:
    def leave() -> str:
        import sys
        import threading

        thread = threading.Thread(target=sys.exit, args=(3,))
        thread.start()
        thread.join()
        return "alive"

    assert rc[0].apply_sync(leave) == "alive"


def test_a_source_that_does_not_parse_inside_a_task(rc: ipp.Client) -> None:
    assert failure(rc[0].apply_async(eval, "1 +")).ename == "SyntaxError"
    result = rc.load_balanced_view().map_async(eval, ["1", "2 +", "3"], return_exceptions=True)
    values = result.get(timeout=PATIENCE_S)
    assert (values[0], values[2], values[1].ename) == (1, 3, "SyntaxError")
