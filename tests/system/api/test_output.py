"""What tasks write, display and publish: exact after `wait_for_output`, live, and for other clients later."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import IPython
import pytest

import enginery as ipp
from enginery.errors import TaskAborted, UnknownTask
from tests.system.api.held import Gate

PATIENCE_S = 20.0
LINES = 100_000

SAYS_ALL = """
from IPython.display import display, clear_output
from enginery.datapub import publish_data
print("a")
display({"text/plain": "gone"}, raw=True)
clear_output()
handle = display({"text/plain": "old", "text/html": "<b>"}, raw=True, display_id="id")
handle.update({"text/plain": "new"}, raw=True)
publish_data({"x": 1})
print("b", file=__import__("sys").stderr)
publish_data({"x": 2, "y": bytes(100_000)})
"""


def check_all(ar: Any) -> None:
    """What `SAYS_ALL` has said, in full."""
    assert (ar.stdout, ar.stderr) == ("a\n", "b\n")
    assert ar.outputs == [{"data": {"text/plain": "new"}, "metadata": {}, "transient": {"display_id": "id"}}]
    assert ar.data == {"x": 2, "y": bytes(100_000)}


# ---------------------------------------------------------------- the client's own tasks


def test_all_is_there_after_wait_for_output(rc: ipp.Client) -> None:
    for _ in range(20):
        ar = rc[0].execute(SAYS_ALL)
        assert ar.wait_for_output(PATIENCE_S) is True
        check_all(ar)
        assert ar.metadata.outputs == ar.outputs


def test_a_blocking_execute_returns_with_all_output(rc: ipp.Client) -> None:
    ar = rc[0].execute(SAYS_ALL, block=True)
    check_all(ar)
    with pytest.raises(ZeroDivisionError):
        rc[0].execute("print('text'); 1 / 0", block=True)


def test_get_does_not_wait_for_output(rc: ipp.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    ar = rc[0].apply_async(lambda: print("x" * 100_000))

    def refuse(timeout: float | None = None) -> bool:
        raise AssertionError("get waits for output")

    monkeypatch.setattr(ar, "wait_for_output", refuse)
    assert ar.get(PATIENCE_S) is None


def test_retried_attempts_do_not_confuse_the_count(rc: ipp.Client) -> None:
    def fail_first() -> None:
        import __main__

        count = __main__.count = getattr(__main__, "count", 0) + 1
        for number in range(5):
            print(f"attempt {count}, line {number}", "." * 40_000)
        if count < 3:
            print("short")
            raise ValueError(count)

    view = rc.load_balanced_view(targets=0, retries=2)
    ar = view.apply_async(fail_first)
    assert ar.wait_for_output(PATIENCE_S)
    lines = [line.split(" .")[0] for line in ar.stdout.splitlines()]
    expected = [f"attempt {count}, line {number}" for count in (1, 2, 3) for number in range(5)]
    assert [line for line in lines if line != "short"] == expected
    assert lines.count("short") == 2
    assert ar.stderr == ""
    rc.clear(targets=0, block=True)


def test_a_chatty_task_loses_no_line_and_holds_up_nobody(rc: ipp.Client) -> None:
    """100,000 lines, flushed one by one; what they cost is measured against 10,000 of them."""

    def chat(lines: int) -> None:
        for number in range(lines):
            print(number, flush=True)

    view, took_s = rc[0], {}
    for lines in (LINES // 10, LINES):
        began = time.monotonic()
        ar = view.apply_async(chat, lines)
        assert rc[1].apply_sync(abs, -1) == 1
        assert ar.wait_for_output(3 * PATIENCE_S)
        took_s[lines] = time.monotonic() - began
        assert ar.stdout == "".join(f"{number}\n" for number in range(lines))
        assert ar.stderr == ""
    assert took_s[LINES] < 40 * max(took_s[LINES // 10], 0.05), took_s


# ---------------------------------------------------------------- live


def test_displays_are_streamed_with_their_engines(
    rc: ipp.Client, capsys: pytest.CaptureFixture[str], gate: Gate
) -> None:
    def show(path: str) -> None:
        import fcntl

        from IPython.display import display

        display({"text/plain": "live"}, raw=True)
        print("text")
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH)

    text = "".join(f"[output:{engine}]\nlive\n[stdout:{engine}] text\n" for engine in (0, 1))
    ar = rc.load_balanced_view().map_async(show, [gate.path] * 2, chunksize=1)
    seen = ""
    with ar.stream_output():
        deadline = time.monotonic() + PATIENCE_S
        while len(seen) < len(text) and time.monotonic() < deadline:
            ar.wait(0.05)
            seen += capsys.readouterr().out
        assert not ar.done(), "while the tasks run"
        gate.open()
        ar.wait(PATIENCE_S)
    assert sorted(seen.split("\n")) == sorted(text.split("\n"))


# ---------------------------------------------------------------- other clients, later


def test_another_client_has_everything_later(rc: ipp.Client, another: ipp.Client) -> None:
    ar = rc[0].execute(SAYS_ALL, block=True)
    later = another.get_result(ar.msg_ids[0])
    assert later.wait_for_output(PATIENCE_S) is True
    check_all(later)
    assert another.output(ar.msg_ids[0]) == rc.output(ar.msg_ids[0]) == "a\nb\n"
    assert rc.output(-1) == "a\nb\n"


def test_another_client_has_everything_while_it_runs(rc: ipp.Client, another: ipp.Client, gate: Gate) -> None:
    waits = f"import fcntl\nfcntl.flock(open({gate.path!r}), fcntl.LOCK_SH)"
    text = f"{SAYS_ALL}\n{waits}\nprint('end')"
    ar = rc[0].execute(text)
    assert rc.session.wait_until(lambda: "y" in ar.data, PATIENCE_S)
    assert another.output(ar.msg_ids[0]) == rc.output(ar.msg_ids[0]) == "a\nb\n"
    followed = another.get_result(ar.msg_ids[0])
    assert not followed.done()
    gate.open()
    assert followed.wait_for_output(PATIENCE_S) is True
    assert (followed.stdout, followed.stderr) == ("a\nend\n", "b\n")
    assert (followed.outputs, followed.data) == (ar.outputs, ar.data)


def test_output_of_what_is_no_task(rc: ipp.Client) -> None:
    with pytest.raises(UnknownTask):
        rc.output("7fffffff-1")
    with pytest.raises(ValueError, match=r"output is of one task, and .* names 2"):
        rc.output(rc[:].execute("1"))


# ---------------------------------------------------------------- cells


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Any:
    """As if this program were a cell in IPython."""
    shell = SimpleNamespace(execution_count=1, display_formatter=None)
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    return shell


def test_what_a_cell_has_queued_behind_its_failure_does_not_run(
    rc: ipp.Client, shell: Any, gate: Gate
) -> None:
    view = rc[0]
    before = rc.queue_status(0)["completed"]
    text = f"import fcntl\nfcntl.flock(open({gate.path!r}), fcntl.LOCK_SH)\n1 / 0"
    first = view.execute(text, silent=False)
    behind = [view.execute("ran = True", silent=False), view.execute("ran = True")]
    called = view.apply_async(abs, -1)
    gate.open()
    with pytest.raises(ZeroDivisionError):
        first.get(PATIENCE_S)
    for ar in behind:
        with pytest.raises(TaskAborted):
            ar.get(PATIENCE_S)
        assert ar.status == "aborted"
    assert called.get(PATIENCE_S) == 1
    assert view.apply_sync(lambda: "ran" in globals()) is False
    assert rc.queue_status(0)["completed"] >= before + 4
    # The cell has heard of it and goes on, and so does the next one.
    assert view.execute("5", silent=False, block=True).get().data == {"text/plain": "5"}
    shell.execution_count = 2
    assert view.execute("6", silent=False, block=True).get().data == {"text/plain": "6"}


def test_a_silent_failure_and_one_outside_of_cells_abort_nothing(rc: ipp.Client) -> None:
    view = rc[0]
    failing = [view.execute("1 / 0", silent=False), view.execute("1 / 0")]
    assert view.execute("5", silent=False).get(PATIENCE_S).data == {"text/plain": "5"}
    for ar in failing:
        with pytest.raises(ZeroDivisionError):
            ar.get(PATIENCE_S)
