"""Ending what runs: cancels, time limits, interrupts by hand and by Ctrl-C; engines that do not listen."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import enginery as ipp
from enginery.client.session import Session
from tests.system.api.held import PATIENCE_S, Gate, each, has_begun, texts, until_begun, wait_at
from tests.system.shared import until

# ---------------------------------------------------------------- what user code may be doing


def sleeping() -> None:
    import time

    print("begun")
    time.sleep(600)


def locked() -> None:

    lock = threading.Lock()
    print("begun")
    with lock, lock:
        pass


def queueing() -> None:
    import queue

    print("begun")
    queue.Queue().get()  # type: ignore[var-annotated]


def in_a_subprocess() -> None:
    import subprocess

    print("begun")
    subprocess.run([sys.executable, "-c", "import time; time.sleep(600)"], check=True)


def reading_a_socket() -> None:
    import socket

    one, other = socket.socketpair()
    print("begun")
    with one, other:
        one.recv(1)


def computing() -> None:
    print("begun")
    while True:
        pass


def in_numpy() -> None:
    import numpy

    matrix = numpy.ones((300, 300)) / 300
    print("begun")
    while True:
        matrix = matrix @ matrix


def cleaning_up() -> None:
    import time

    try:
        print("begun")
        time.sleep(600)
    finally:
        time.sleep(0.2)
        sys.modules["__main__"].__dict__["cleaned"] = True


def swallowing() -> None:
    import time

    print("begun")
    for _ in range(2):
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            print("swallowed")
    time.sleep(600)


AWAITING = "import asyncio\nprint('begun')\nawait asyncio.sleep(600)"


def holding_the_interpreter(seconds: float = 600) -> None:
    import ctypes

    holding, free = ctypes.PyDLL(None), ctypes.CDLL(None)
    print("begun")
    free.usleep(200_000)  # a moment for what was printed
    holding.sleep(int(seconds))


def never_ending() -> None:
    import time

    print("begun")
    while True:
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            pass


@pytest.fixture
def own() -> Iterator[ipp.Client]:
    """A cluster that a test may do harm to, and that has no patience."""
    with ipp.Cluster(n=2, cancel_grace=0.3) as client:
        yield client


def ends_cancelled(ar: ipp.AsyncResult) -> ipp.TaskCancelled:
    with pytest.raises(ipp.TaskCancelled) as caught:
        ar.get(timeout=PATIENCE_S)
    assert ar.cancelled()
    return caught.value


# ---------------------------------------------------------------- running code


@pytest.mark.parametrize(
    "function",
    [
        sleeping,
        locked,
        queueing,
        in_a_subprocess,
        reading_a_socket,
        computing,
        in_numpy,
        cleaning_up,
        swallowing,
    ],
)
def test_a_running_task_is_cancelled_and_the_namespace_stays(
    rc: ipp.Client, dview: ipp.DirectView, function: Callable[[], None]
) -> None:
    dview["kept"] = 7
    ar = rc[0].apply_async(function)
    until_begun(ar)
    assert ar.cancel() is True
    error = ends_cancelled(ar)
    assert error.evalue == f"task {ar.msg_ids[0]} was cancelled while it ran"
    assert function.__name__ in str(error), "the traceback says where it was"
    assert ar.metadata.status == "cancelled"
    assert rc[0]["kept"] == 7
    if function is cleaning_up:
        assert rc[0]["cleaned"] is True


def test_a_cell_that_awaits_is_cancelled(rc: ipp.Client, dview: ipp.DirectView) -> None:
    ar = dview.execute(AWAITING, silent=False)
    until_begun(ar)
    assert ar.cancel()
    ends_cancelled(ar)
    assert dview.apply_sync(abs, -1) == each(rc, 1)


def test_waiting_tasks_never_run(rc: ipp.Client, gate: Gate, tmp_path: Any) -> None:
    gate.hold(rc[:])
    ran = tmp_path / "ran"
    waiting = [rc[0].apply_async(ran.touch), rc.load_balanced_view().apply_async(ran.touch)]
    for ar in waiting:
        assert ar.cancel()
        assert ends_cancelled(ar).evalue.endswith("was cancelled before it started")
    gate.open()
    rc.wait(timeout=PATIENCE_S)
    assert not ran.exists()
    assert waiting[0].cancel() is False


def test_a_cancel_does_not_hit_what_comes_after_it(rc: ipp.Client) -> None:
    """Tasks of all lengths around the moment of the cancel: each ends rightly, none for another's sake."""

    def work(number: int) -> int:
        for step in range(number % 50 * 400):
            step += 1
        return number

    view = rc.load_balanced_view()
    results = [view.apply_async(work, number) for number in range(1500)]
    cancelled = set()
    for number in range(0, 1500, 7):
        if results[number].cancel():
            cancelled.add(number)
    for number, ar in enumerate(results):
        value = ar.get(timeout=PATIENCE_S, return_exceptions=True)
        if isinstance(value, ipp.TaskCancelled):
            assert number in cancelled
        else:
            assert value == number
    assert rc[:].apply_sync(abs, -1) == each(rc, 1)


def test_anybody_may_cancel_by_the_id(rc: ipp.Client, another: ipp.Client) -> None:
    ar = rc[0].apply_async(sleeping)
    until_begun(ar)
    by_id = another.get_result(ar.msg_ids[0], block=False)
    assert by_id.cancel()
    ends_cancelled(by_id)
    ends_cancelled(ar)


def test_what_is_left_of_it_in_the_history(rc: ipp.Client) -> None:
    ar = rc[0].apply_async(sleeping)
    until_begun(ar)
    ar.cancel()
    ar.wait(PATIENCE_S)
    (record,) = rc.db_query({"msg_id": ar.msg_ids[0]})
    assert record["result_content"]["status"] == "cancelled"
    assert record["result_content"]["ename"] == "TaskCancelled"
    assert rc.db_query({"msg_id": ar.msg_ids[0], "status": "cancelled"}, keys=["msg_id"])
    assert not rc.db_query({"msg_id": ar.msg_ids[0], "status": "error"}, keys=["msg_id"])
    assert rc.result_status(ar.msg_ids)["completed"] == ar.msg_ids
    assert rc.queue_status(0)["queue"] == 0
    assert isinstance(ar.metadata.error, ipp.TaskCancelled)


# ---------------------------------------------------------------- futures and maps


def test_futures_of_executors_can_be_cancelled_while_they_run(rc: ipp.Client) -> None:
    with rc.executor() as executor:
        running, short = executor.submit(sleeping), executor.submit(abs, -3)
        until_begun(running)
        assert running.cancel()
        done, pending = concurrent.futures.wait([running, short], timeout=PATIENCE_S)
        assert (done, pending) == ({running, short}, set())
        assert (running.cancelled(), short.cancelled()) == (True, False)
        with pytest.raises(concurrent.futures.CancelledError):
            running.exception()
        assert short.result() == 3


@pytest.mark.parametrize("chunksize", [1, 4, 8])
def test_cancelling_one_item_leaves_the_others_their_values(
    rc: ipp.Client, gate: Gate, chunksize: int
) -> None:
    path = gate.path

    def work(item: int) -> int:
        if item == 2:
            return int(wait_at(path, item))
        return item * item

    ar = rc.load_balanced_view().map_async(work, range(8), chunksize=chunksize, return_exceptions=True)
    assert rc.session.wait_until(lambda: any(map(has_begun, texts(ar))), PATIENCE_S)
    assert ar.cancel(2, 3 if chunksize == 4 else 2)
    values = ar.get(timeout=PATIENCE_S)
    gone = {2, 3} if chunksize == 4 else {2}
    assert [value for item, value in enumerate(values) if item not in gone] == [
        item * item for item in range(8) if item not in gone
    ]
    assert all(isinstance(values[item], ipp.TaskCancelled) for item in gone)
    assert ar.cancel(5) is False
    with pytest.raises(IndexError):
        ar.cancel(8)


def test_a_map_that_is_cancelled_keeps_what_it_has(rc: ipp.Client, gate: Gate) -> None:
    path = gate.path
    ar = rc[0].map_async(lambda item: item if item < 3 else wait_at(path), range(100))
    until_begun(ar)
    assert ar.cancel()
    error = ends_cancelled(ar)
    assert "97 of 100 items" in str(error) or "was cancelled while it ran" in str(error)
    partial = ar.partial()
    assert partial.values[:3] == [0, 1, 2]
    assert len(partial.failed) == 97


# ---------------------------------------------------------------- engines that do not listen


@pytest.mark.parametrize("function", [never_ending])
def test_an_engine_that_does_not_end_a_task_is_replaced(
    own: ipp.Client, gate: Gate, function: Callable[[], None]
) -> None:
    own[:]["kept"] = 7
    stuck = own[0].apply_async(function)
    behind = own[0].apply_async(abs, -1)
    until_begun(stuck)
    stuck.cancel()
    elsewhere = own.load_balanced_view().map_async(abs, range(20))
    error = ends_cancelled(stuck)
    assert error.evalue == (
        f"task {stuck.msg_ids[0]} was cancelled: it did not end within 0.3 s of being cancelled, so engine 0 "
        "had to be replaced, and its namespace is lost"
    )
    assert elsewhere.get(timeout=PATIENCE_S) == list(range(20))
    with pytest.raises(ipp.EngineError, match=r"it was replaced, because task .* in it did not end"):
        behind.get(timeout=PATIENCE_S)
    assert own.wait_for_engines(2, timeout=PATIENCE_S) is None
    assert own.ids == [0, 1]
    assert own[1]["kept"] == 7
    with pytest.raises(NameError):
        own[0]["kept"]


def test_an_engine_that_lets_go_in_time_stays(rc: ipp.Client, dview: ipp.DirectView) -> None:
    dview["kept"] = 7
    ar = rc[0].apply_async(holding_the_interpreter, 1)
    until_begun(ar)
    ar.cancel()
    assert ar.get(timeout=PATIENCE_S, return_exceptions=True) is None or ar.cancelled()
    assert rc[0]["kept"] == 7


# ---------------------------------------------------------------- limits


def test_time_limits(rc: ipp.Client, dview: ipp.DirectView) -> None:
    view = rc.load_balanced_view(time_limit=0.2)
    with pytest.raises(ipp.TimeLimitExceeded) as caught:
        view.apply_sync(sleeping)
    assert isinstance(caught.value, ipp.TaskTimeout)
    assert caught.value.limit_s == 0.2
    assert "ran longer than its time_limit of 0.2 s" in str(caught.value)
    assert view.apply_sync(abs, -1) == 1
    with pytest.raises(ipp.TimeLimitExceeded):
        rc.apply(computing, targets=0, block=True, time_limit=0.1)
    with pytest.raises(ipp.TimeLimitExceeded):
        rc[0].execute("while True: pass", block=True, time_limit=0.1)
    with dview.temp_flags(time_limit=0.1), pytest.raises(ipp.CompositeError) as several:
        dview.apply_sync(sleeping)
    assert all(isinstance(error, ipp.TimeLimitExceeded) for error in several.value.exceptions)


@pytest.mark.parametrize("options", [{}, {"chunksize": 4}, None])
def test_each_item_of_a_map_has_the_limit(rc: ipp.Client, options: dict[str, int] | None) -> None:
    def work(item: int) -> int:
        import time

        time.sleep(600 if item == 2 else 0.1)
        return item

    view: Any = rc[:] if options is None else rc.load_balanced_view()
    values = view.map_sync(work, range(6), time_limit=0.4, return_exceptions=True, **(options or {}))
    assert [value for value in values if isinstance(value, int)] == [0, 1, 3, 4, 5]
    assert isinstance(values[2], ipp.TimeLimitExceeded)


def test_an_engine_that_does_not_keep_to_a_limit_is_replaced(own: ipp.Client) -> None:
    ar = own.apply(holding_the_interpreter, targets=1, time_limit=3, block=False)
    with pytest.raises(ipp.TimeLimitExceeded, match="so engine 1 had to be replaced"):
        ar.get(timeout=PATIENCE_S)
    own.wait_for_engines(2, timeout=PATIENCE_S)
    assert own[1].apply_sync(abs, -1) == 1


def test_what_took_too_long_is_tried_again_if_that_is_asked_for(rc: ipp.Client, tmp_path: Any) -> None:
    first = tmp_path / "first"

    def work() -> str:
        import time

        try:
            first.touch(exist_ok=False)
        except FileExistsError:
            return "the second time"
        time.sleep(600)
        return ""

    assert rc.load_balanced_view(time_limit=0.3, retries=1).apply_sync(work) == "the second time"


# ---------------------------------------------------------------- by hand


def test_what_runs_is_interrupted_past_the_queue(rc: ipp.Client, dview: ipp.DirectView) -> None:
    dview["kept"] = 7
    running = dview.apply_async(sleeping)
    waiting = dview.apply_async(abs, -1)
    until_begun(running)
    assert rc.interrupt(0, block=True) is None
    assert waiting.split()[0].get(timeout=PATIENCE_S) == 1
    first, second = running.split()
    with pytest.raises(ipp.RemoteError, match=r"KeyboardInterrupt\(\)"):
        first.get(timeout=PATIENCE_S)
    assert not second.done()
    rc.interrupt(block=False).result(PATIENCE_S)
    assert running.wait(PATIENCE_S)
    assert dview["kept"] == each(rc, 7)
    rc.interrupt(block=True)
    assert dview.apply_sync(abs, -1) == each(rc, 1)
    with pytest.raises(IndexError):
        rc.interrupt(99)


def interrupt_when_begun(
    rc: ipp.Client, path: str, *, again: threading.Event | None = None
) -> threading.Thread:
    """Ctrl-C as soon as a task has opened this pipe; and once more when `again` is set."""

    def watch() -> None:
        with open(path, "rb", buffering=0) as pipe:
            pipe.read(1)
        os.kill(os.getpid(), signal.SIGINT)
        if again is not None:
            assert again.wait(PATIENCE_S)
            os.kill(os.getpid(), signal.SIGINT)

    os.mkfifo(path)
    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def join(thread: threading.Thread) -> None:
    """Ctrl-C that comes too late is this test's failure, and not the end of all tests."""
    try:
        thread.join(PATIENCE_S)
    except KeyboardInterrupt:
        pytest.fail("the interrupt came when the call had ended")
    assert not thread.is_alive()


def begin_and_sleep(path: str, seconds: float = 600) -> str:
    import time

    with open(path, "wb", buffering=0) as pipe:
        pipe.write(b"x")
    time.sleep(seconds)
    return "slept"


def test_ctrl_c_ends_the_tasks_of_the_blocking_call_and_no_others(rc: ipp.Client, tmp_path: Any) -> None:
    other = rc[1].apply_async(sleeping)
    until_begun(other)
    for number, call in enumerate(
        [
            lambda path: rc[0].apply_sync(begin_and_sleep, path),
            lambda path: rc.load_balanced_view(targets=[0]).map_sync(begin_and_sleep, [path] * 3),
            lambda path: rc[0].execute(
                f"import time\nwith open({path!r}, 'wb') as p: p.write(b'x')\ntime.sleep(600)", block=True
            ),
            lambda path: rc.apply(begin_and_sleep, (path,), targets=0, block=True),
        ]
    ):
        path = str(tmp_path / f"pipe {number}")
        thread = interrupt_when_begun(rc, path)
        with pytest.raises(KeyboardInterrupt):
            call(path)
        join(thread)
        assert rc.outstanding == set(other.msg_ids), "they have ended when the call has"
    assert not other.done()
    other.cancel()
    ends_cancelled(other)


def test_ctrl_c_at_any_moment_of_a_blocking_call_leaves_nothing_running(rc: ipp.Client, gate: Gate) -> None:
    view = rc.load_balanced_view()
    handler = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        for step in range(1, 80):
            for call in (
                lambda: view.map_sync(wait_at, [gate.path] * 4, chunksize=1),
                lambda: rc[:].apply_sync(wait_at, gate.path),
            ):
                with pytest.raises(KeyboardInterrupt):
                    signal.setitimer(signal.ITIMER_REAL, 25e-6 * step)
                    call()
                assert rc.session.wait_until(lambda: not rc.outstanding, PATIENCE_S), step
            until(lambda: rc.queue_status()["unassigned"] == 0)
            assert rc[:].apply_sync(abs, -1) == [1] * len(rc)
    finally:
        signal.signal(signal.SIGALRM, handler)


def begin_and_wait(path: str, gate: str) -> str:
    import fcntl

    with open(path, "wb", buffering=0) as pipe:
        pipe.write(b"x")
    with open(gate) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
    return "through"


def test_ctrl_c_may_leave_them_running(rc: ipp.Client, gate: Gate, tmp_path: Any) -> None:
    path = str(tmp_path / "pipe")
    thread = interrupt_when_begun(rc, path)
    ar = rc.apply(begin_and_wait, (path, gate.path), targets=0, block=True, on_interrupt="keep")
    join(thread)
    assert isinstance(ar, ipp.AsyncResult)
    gate.open()
    assert ar.get(timeout=PATIENCE_S) == "through"


def test_a_second_ctrl_c_does_not_wait(
    rc: ipp.Client, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, again = str(tmp_path / "pipe"), threading.Event()
    withdraw = Session.withdraw

    def note(self: Session, *what: Any) -> None:
        withdraw(self, *what)
        again.set()

    monkeypatch.setattr(Session, "withdraw", note)
    thread = interrupt_when_begun(rc, path, again=again)
    with pytest.raises(KeyboardInterrupt):
        rc[0].execute(
            f"import time\nwith open({path!r}, 'wb') as p: p.write(b'x')\n"
            "try: time.sleep(600)\nfinally: time.sleep(1)",
            block=True,
        )
    join(thread)
    assert rc.wait(timeout=PATIENCE_S)


# ---------------------------------------------------------------- priorities


def test_a_task_of_higher_priority_starts_before_ten_thousand(rc: ipp.Client, gate: Gate) -> None:
    gate.hold(rc[0])
    view = rc.load_balanced_view(targets=[0])
    many = [view.apply_async(abs, -1) for _ in range(10_000)]
    raised = many[9_000]
    raised.set_priority(5)
    urgent = rc.load_balanced_view(targets=[0], priority=10).apply_async(abs, -2)
    until(lambda: rc.queue_status()["unassigned"] == 10_001)  # the engine has given back what it had
    gate.open()
    assert urgent.get(timeout=PATIENCE_S) == 2
    rc.wait(many, timeout=4 * PATIENCE_S)
    assert urgent.started < raised.started < min(ar.started for ar in many if ar is not raised)


def test_also_if_engines_have_been_given_others_already(gates: Callable[[], Gate]) -> None:
    with ipp.Cluster(n=1, hwm=0) as rc:
        gate = gates()
        gate.hold(rc[0])
        many = [rc.load_balanced_view().apply_async(abs, -1) for _ in range(500)]
        until(lambda: rc.queue_status(0)["tasks"] == 500)
        urgent = rc.load_balanced_view(priority=1).apply_async(abs, -2)
        rc.queue_status(0)
        gate.open()
        assert urgent.get(timeout=PATIENCE_S) == 2
        rc.wait(many, timeout=PATIENCE_S)
        assert urgent.started < min(ar.started for ar in many)


# ---------------------------------------------------------------- tasks that end their engines


def test_a_task_that_kills_engines_names_all_of_them() -> None:
    def die() -> None:

        os.kill(os.getpid(), signal.SIGKILL)

    with ipp.Cluster(n=4) as rc:
        ar = rc.load_balanced_view(retries=2).apply_async(die)
        with pytest.raises(ipp.EngineError) as caught:
            ar.get(timeout=PATIENCE_S)
        assert str(caught.value).count("killed by SIGKILL") == 3
        rc.wait_for_engines(1, timeout=PATIENCE_S)
        assert rc.load_balanced_view().apply_sync(abs, -1) == 1
