"""Clients that are closed, and clients that are forgotten: what they leave here and in the controller."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator

import psutil
import pytest

import enginery as ipp
from enginery.protocol.messages import AskStatus, StatusAnswer
from tests.system.shared import MIB, PATIENCE_S, Program, pattern, until

MANY = 200


@pytest.fixture(scope="module")
def rc() -> Iterator[ipp.Client]:
    with ipp.Cluster(n=2) as client:
        client[:].apply_sync(abs, -1)
        yield client


def footprint(rc: ipp.Client) -> tuple[int, int, int, int]:
    """Descriptors and threads of this process, and of the controller."""
    own, controller = psutil.Process(), psutil.Process(rc.session.info.controller_pid)
    return own.num_fds(), threading.active_count(), controller.num_fds(), controller.num_threads()


def check_nothing_is_left(rc: ipp.Client, come_and_go: Callable[[], None], *, times: int = MANY) -> None:
    threads = threading.active_count()
    come_and_go()  # threads of the controller that begin with the first need of them
    gc.collect()
    until(lambda: clients_of(rc) == 1 and threading.active_count() == threads)
    before = footprint(rc)
    for _ in range(times):
        come_and_go()
    gc.collect()  # errors and their tracebacks hold each other
    # What the controller has to close it may not have closed yet when it was looked at before.
    until(lambda: all(now <= then for now, then in zip(footprint(rc), before, strict=True)))
    until(lambda: clients_of(rc) == 1)


def clients_of(client: ipp.Client) -> int:
    question = client.session.ask(AskStatus)
    assert client.session.wait_until(question.done, PATIENCE_S)
    answer = question.result(0)
    assert isinstance(answer, StatusAnswer)
    return answer.clients


def test_clients_that_are_closed_leave_nothing(rc: ipp.Client) -> None:
    def come_and_go() -> None:
        with ipp.Client(rc.connection_file) as client:
            assert client[0].apply_sync(abs, -1) == 1

    check_nothing_is_left(rc, come_and_go)


def test_clients_that_are_dropped_leave_nothing(rc: ipp.Client) -> None:
    """Without the collector, as far as nothing of the user's holds them in a circle."""

    def come_and_go() -> None:
        assert ipp.Client(rc.connection_file)[0].apply_sync(abs, -1) == 1

    gc.disable()
    try:
        check_nothing_is_left(rc, come_and_go)
    finally:
        gc.enable()


USES: dict[str, Callable[[ipp.Client], object]] = {
    "nothing": lambda rc: None,
    "a map": lambda rc: rc.load_balanced_view().map_sync(abs, range(10)),
    "a map over an iterator": lambda rc: list(rc.load_balanced_view().map_async(abs, iter(range(50)))),
    "a part of a lazy map": lambda rc: next(iter(rc.load_balanced_view().imap(abs, iter(range(50))))),
    "an error": lambda rc: rc[0].apply_async(int, "x").exception(PATIENCE_S),
    "text": lambda rc: rc[:].execute("print('said')").get(PATIENCE_S),
    "big buffers": lambda rc: (rc[:].push({"a": pattern(6 * MIB)}, block=True), rc[0]["a"]),
    "a result by its id": lambda rc: rc.get_result(rc[0].apply_async(abs, -1).msg_ids).get(PATIENCE_S),
    "a call whose result nobody keeps": lambda rc: rc[0].apply_async(abs, -1),
    "an executor": lambda rc: rc.executor().submit(abs, -1).result(PATIENCE_S),
    "questions": lambda rc: (rc.queue_status(), rc.hub_history(), rc.memory()),
}


@pytest.mark.parametrize("use", USES)
def test_a_client_that_is_dropped_after_use_leaves_nothing(rc: ipp.Client, use: str) -> None:
    def come_and_go() -> None:
        USES[use](ipp.Client(rc.connection_file))

    check_nothing_is_left(rc, come_and_go, times=3)


def test_results_that_somebody_holds_keep_their_client(rc: ipp.Client) -> None:
    def send() -> list[ipp.AsyncResult]:
        view = ipp.Client(rc.connection_file)[:]
        return [view.apply_async(abs, -n) for n in range(5)]

    results = send()
    gc.collect()
    assert [ar.get(PATIENCE_S) for ar in results] == [[n, n] for n in range(5)]
    assert clients_of(rc) == 2
    del results
    gc.collect()
    until(lambda: clients_of(rc) == 1)


def test_a_program_that_forgets_its_client_ends_when_its_calls_are_safe(rc: ipp.Client) -> None:
    program = Program(
        """
        rc = ipp.Client(sys.argv[1])
        print(rc[0].push({"left": numpy.arange(3_000_000)}, block=False).msg_ids[0], flush=True)
        del rc
        """,
        rc.connection_file,
    )
    task = program.line()
    program.end()
    assert rc.get_result(task).get(PATIENCE_S) is None
    assert rc[0].apply_sync(lambda: int(left[-1])) == 2_999_999  # type: ignore[name-defined]  # noqa: F821
