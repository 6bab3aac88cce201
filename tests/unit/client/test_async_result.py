"""AsyncResult: values, errors, waiting, and how it behaves among other futures."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
import weakref
from typing import Any

import pytest

from enginery.client.client import Client
from enginery.client.results import AsyncResult
from enginery.client.results.async_result import Origin
from enginery.client.results.outcome import MapOutcome, Outcome
from enginery.client.results.verdicts import verdict_of
from enginery.errors import (
    CompositeError,
    DependencyTimeout,
    EngineError,
    EngineLost,
    ImpossibleDependency,
    InvalidDependency,
    RemoteError,
    ResultDropped,
    TaskAborted,
    TaskCancelled,
    TimeLimitExceeded,
    UnknownTask,
    UnmetDependency,
    Verdict,
)
from enginery.ids import EngineId, TaskId
from enginery.objects.failures import pack_failure
from enginery.objects.packing import pack
from enginery.protocol.messages import RECORDED, Output, Status, TaskResult
from tests.unit.client.fake_session import FakeSession, make_client
from tests.unit.client.sayings import write


@pytest.fixture
def parts() -> tuple[Client, FakeSession]:
    return make_client((0, 1, 2))


def where() -> int:
    return engine  # type: ignore[name-defined]  # noqa: F821 - a name of the engine's namespace


def fail_on(*engines: int) -> int:
    if engine in engines:  # type: ignore[name-defined]  # noqa: F821
        raise ValueError(f"engine {engine}")  # type: ignore[name-defined]  # noqa: F821
    return engine  # type: ignore[name-defined]  # noqa: F821


for function in (where, fail_on):
    function.__module__ = "__main__"  # by value, so that free names are the engine's


# ---------------------------------------------------------------- values


def test_one_engine_gives_the_bare_value(parts: tuple[Client, FakeSession]) -> None:
    client, _ = parts
    ar = client[1].apply_async(where)
    assert not ar.ready()
    assert ar.get() == 1
    assert ar.ready()
    assert ar.successful()
    assert ar.done()
    assert (ar.result(), ar.r, ar.exception()) == (1, 1, None)
    with pytest.raises(TypeError, match="a call to one engine has one value"):
        iter(ar)


def test_a_list_of_targets_gives_a_list_in_their_order(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.order = lambda count: count - 1
    assert client[2, 0].apply_async(where).get() == [2, 0]
    assert client[[1]].apply_async(where).get() == [1]
    assert client[2, 0].apply_async(where).get_dict() == {2: 2, 0: 0}
    assert client[1].apply_async(where).get_dict() == {1: 1}


def test_iteration_gives_values_as_they_come(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    ar = client[:].apply_async(where)
    assert len(ar) == 3
    results = iter(ar)
    assert next(results) == 0
    assert len(session.waiting) == 2
    assert ar.progress == 1
    assert not ar.ready()
    assert list(results) == [1, 2]
    assert list(ar) == [0, 1, 2]


def test_values_are_unpickled_when_somebody_asks_and_once(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    Loud.loads = 0
    ar = client[0].apply_async(Loud)
    session.run_all()
    assert ar.ready()
    assert Loud.loads == 0
    values: list[Any] = []
    threads = [threading.Thread(target=lambda: values.append(ar.get())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert Loud.loads == 1
    assert len(values) == 4
    assert len({id(value) for value in values}) == 1


class Loud:
    loads = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_loud, ()


def _load_loud() -> Loud:
    Loud.loads += 1
    return Loud()


class Broken:
    def __reduce__(self) -> tuple[Any, ...]:
        return _break, ()


def _break() -> None:
    raise LookupError("no such thing here")


def test_an_unpickling_error_is_the_results_error(parts: tuple[Client, FakeSession]) -> None:
    client, _ = parts
    ar = client[0].apply_async(Broken)
    with pytest.raises(LookupError, match="no such thing here") as caught:
        ar.get()
    assert caught.value.__notes__ == [f"The result of task {ar.msg_ids[0]} cannot be unpickled here."]
    assert not ar.successful()


# ---------------------------------------------------------------- errors


def test_a_remote_error_is_the_original_type(parts: tuple[Client, FakeSession]) -> None:
    client, _ = parts
    ar = client[1].apply_async(fail_on, 1)
    with pytest.raises(ValueError, match="engine 1") as caught:
        ar.get()
    assert isinstance(caught.value, RemoteError)
    assert caught.value.ename == "ValueError"
    assert caught.value.engine_info["engine_id"] == 1
    assert ar.exception() is caught.value
    assert isinstance(ar.get(return_exceptions=True), ValueError)


def test_one_of_several_raises_itself(parts: tuple[Client, FakeSession]) -> None:
    client, _ = parts
    ar = client[:].apply_async(fail_on, 2)
    with pytest.raises(ValueError, match="engine 2"):
        ar.get()
    zero, one, two = ar.get(return_exceptions=True)
    assert (zero, one) == (0, 1)
    assert isinstance(two, ValueError)
    values = iter(ar)
    assert [next(values), next(values)] == [0, 1]
    with pytest.raises(ValueError, match="engine 2"):
        next(values)


def test_several_are_a_composite_error(parts: tuple[Client, FakeSession]) -> None:
    client, _ = parts
    ar = client[:].apply_async(fail_on, 0, 2)
    with pytest.raises(CompositeError, match="2 of 3 calls of fail_on failed") as caught:
        ar.get()
    assert [entry[:2] for entry in caught.value.elist] == [
        ("ValueError", "engine 0"),
        ("ValueError", "engine 2"),
    ]
    assert ar.exception() is caught.value


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (
            Status.ENGINE_DIED,
            EngineError,
            "engine 1 died: killed by SIGKILL; task 0abcdef0-1 was not finished",
        ),
        (
            Status.ENGINE_LOST,
            EngineLost,
            (
                "engine 1 was lost without proof that it ended: killed by SIGKILL; "
                "task 0abcdef0-1 was not finished"
            ),
        ),
        (
            Status.NO_ENGINE,
            EngineError,
            (
                "task 0abcdef0-1 did not run because engine 1 is not there: killed by SIGKILL; "
                "client.ids names those that are"
            ),
        ),
        (Status.REFUSED, Verdict, "task 0abcdef0-1 came to no result: killed by SIGKILL"),
        (Status.ABORTED, TaskAborted, "task 0abcdef0-1 was aborted before it started"),
        (Status.CANCELLED, TaskCancelled, "task 0abcdef0-1 was cancelled: killed by SIGKILL"),
        (Status.OVER_LIMIT, TimeLimitExceeded, "task 0abcdef0-1 ran longer than it may: killed by SIGKILL"),
        (Status.UNMET, UnmetDependency, "task 0abcdef0-1 did not run: killed by SIGKILL"),
        (Status.IMPOSSIBLE, ImpossibleDependency, "task 0abcdef0-1 can never run: killed by SIGKILL"),
        (Status.INVALID, InvalidDependency, "task 0abcdef0-1 can never run: killed by SIGKILL"),
        (Status.TIMED_OUT, DependencyTimeout, "task 0abcdef0-1 did not run: killed by SIGKILL"),
        (Status.UNKNOWN, UnknownTask, "task 0abcdef0-1 has no result: killed by SIGKILL"),
        (
            Status.DROPPED,
            ResultDropped,
            (
                "task 0abcdef0-1 has no value any more: killed by SIGKILL; the history drops the oldest "
                "values above its payload_limit; start the cluster with a larger one to keep more"
            ),
        ),
    ],
)
def test_verdicts(
    parts: tuple[Client, FakeSession], status: Status, kind: type[Exception], text: str
) -> None:
    client, session = parts
    session.verdicts[1] = TaskResult(TaskId(1), status, engine=EngineId(1), detail="killed by SIGKILL")
    with pytest.raises(kind) as caught:
        client[1].apply_sync(where)
    assert type(caught.value) is kind
    assert str(caught.value) == text
    assert isinstance(caught.value, RemoteError)
    assert caught.value.ename == ("TaskTimeout" if kind is DependencyTimeout else kind.__name__)
    ar = client.load_balanced_view().map_async(where, [1])
    session.verdicts[2] = TaskResult(TaskId(2), status, engine=EngineId(1), detail="killed by SIGKILL")
    with pytest.raises(kind):
        ar.get()


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (Status.REFUSED, "task 0abcdef0-1 came to no result"),
        (
            Status.UNMET,
            "task 0abcdef0-1 did not run: the engine does not meet what it depends on",
        ),
        (
            Status.TIMED_OUT,
            "task 0abcdef0-1 did not run: its dependencies were not met within its timeout",
        ),
        (
            Status.UNKNOWN,
            "task 0abcdef0-1 has no result: it was never sent to this cluster, or has been purged",
        ),
    ],
)
def test_verdicts_without_a_reason(status: Status, text: str) -> None:
    assert str(verdict_of(TaskResult(TaskId((0x0ABCDEF0 << 32) + 1), status))) == text


def test_an_unknown_task_is_a_key_error() -> None:
    assert issubclass(UnknownTask, KeyError)


@pytest.mark.parametrize("kind", ["call", "map"])
def test_a_refusal_comes_as_the_tasks_own_error(parts: tuple[Client, FakeSession], kind: str) -> None:
    client, _ = parts
    packed = pack_failure(UnmetDependency("no such disk here"), engine=1)
    result = TaskResult(TaskId(1), Status.UNMET, packed.inline, engine=EngineId(1))
    owner = client[1].apply_async(where)
    outcome = Outcome(owner) if kind == "call" else MapOutcome(owner, 0, 2)
    outcome.on_result(result, ())
    with pytest.raises(UnmetDependency, match="no such disk here"):
        raise outcome.errors()[0]
    assert len(outcome.errors()) == outcome.size


# ---------------------------------------------------------------- waiting


def test_time_outs(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.is_held = True
    ar = client[:].apply_async(where)
    assert ar.wait(0) is False
    with pytest.raises(TimeoutError, match=r"where has not ended after 0 s \(0 of 3 done\)"):
        ar.get(0)
    with pytest.raises(TimeoutError):
        ar.exception(timeout=0)
    with pytest.raises(TimeoutError, match="wall_time is known when all has ended"):
        _ = ar.wall_time
    with pytest.raises(RuntimeError, match="has not ended yet"):
        ar.successful()
    with pytest.raises(TimeoutError):
        _ = ar[0]
    session.is_held = False
    assert ar.wait(None) is True
    assert ar[0] == 0
    assert ar[1:] == [1, 2]


def test_with_concurrent_futures(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    ars = [client[0].apply_async(where), client[0].apply_async(fail_on, 0), client[:].apply_async(where)]
    session.run_all()
    done, pending = concurrent.futures.wait(ars, timeout=0)
    assert done == set(ars)
    assert not pending
    assert set(concurrent.futures.as_completed(ars, timeout=0)) == set(ars)
    fresh = [client[0].apply_async(fail_on, 0), client[0].apply_async(where)]
    session.step()
    done, pending = concurrent.futures.wait(fresh, timeout=0, return_when=concurrent.futures.FIRST_EXCEPTION)
    assert (done, pending) == ({fresh[0]}, {fresh[1]})


def test_done_callbacks_may_look_at_the_value(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    seen: list[int] = []
    client[0].apply_async(where).add_done_callback(lambda ar: seen.append(ar.result()))
    session.run_all()
    assert seen == [0]


def test_await(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts

    async def both() -> tuple[Any, BaseException]:
        good, bad = client[:].apply_async(where), client[0].apply_async(fail_on, 0)
        runner = threading.Thread(target=session.run_all)
        runner.start()
        value = await good
        try:
            await bad
        except ValueError as error:
            return value, error
        finally:
            runner.join(10)
        raise AssertionError

    value, error = asyncio.run(both())
    assert value == [0, 1, 2]
    assert isinstance(error, RemoteError)
    assert error.evalue == "engine 0"


def test_a_snapshot_for_newer_asyncio(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    good, bad = client[0].apply_async(where), client[0].apply_async(fail_on, 0)
    assert good._get_snapshot() == (False, False, None, None)
    session.run_all()
    assert good._get_snapshot() == (True, False, 0, None)
    assert bad._get_snapshot() == (True, False, None, bad.exception())


# ---------------------------------------------------------------- taking back


def test_abort(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    ar = client[0].apply_async(where)
    ar.abort()
    with pytest.raises(TaskAborted):
        ar.get()
    assert ar.metadata.status == "aborted"
    assert not ar.cancelled()
    with pytest.raises(RuntimeError, match="there is nothing to abort"):
        ar.abort()
    assert session.outstanding() == set()


def test_cancel(parts: tuple[Client, FakeSession]) -> None:
    client, _ = parts
    ar = client[0].apply_async(where)
    assert ar.cancel() is True
    assert ar.cancelled()
    assert ar.done()
    with pytest.raises(TaskCancelled, match="was cancelled before it started"):
        ar.get()
    with pytest.raises(concurrent.futures.CancelledError):
        ar.exception()
    assert ar.cancel() is False


def test_cancel_that_comes_late_changes_nothing(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    ar = client[0, 1].apply_async(where)
    session.step()
    assert ar.cancel() is True
    first, second = ar.get(return_exceptions=True)
    assert first == 0
    assert isinstance(second, TaskCancelled)
    with pytest.raises(concurrent.futures.CancelledError):
        ar.result()
    assert ar.cancelled(), "as its value and its error say"
    assert repr(ar) == "<AsyncResult: where: cancelled>"
    finished = client[0].apply_async(where)
    session.run_all()
    assert finished.cancel() is False
    assert finished.get() == 0


# ---------------------------------------------------------------- what is known of it


def test_metadata(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.item_s = 2.0
    view = client.direct_view(1, label="night")
    ar = view.apply_async(where)
    metadata = ar.metadata
    assert (metadata.msg_id, metadata.engine_id, metadata.status) == (ar.msg_ids[0], 1, None)
    assert metadata["label"] == "night"
    assert metadata.completed is None
    session.run_all()
    assert ar.metadata is metadata
    assert (metadata.status, metadata.engine_uuid, metadata.error) == ("ok", "key1", None)
    assert (metadata.completed - metadata.started).total_seconds() == 2.0
    assert metadata.received >= metadata.submitted
    assert metadata.submitted.tzinfo is not None
    assert (ar["engine_id"], ar.engine_id, ar.serial_time) == (1, 1, 2.0)
    assert 0 <= ar.wall_time == ar.elapsed
    with pytest.raises(KeyError):
        _ = ar["nonsense"]
    with pytest.raises(AttributeError, match="'AsyncResult' object has no attribute 'nonsense'"):
        _ = ar.nonsense
    with pytest.raises(AttributeError):
        _ = metadata.nonsense


def test_metadata_of_several(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    ar = client[:].apply_async(fail_on, 1)
    session.run_all()
    assert [entry.status for entry in ar.metadata] == ["ok", "error", "ok"]
    assert isinstance(ar.metadata[1].error, ValueError)
    assert ar.engine_id == [0, 1, 2]
    assert ar.msg_ids == ["0abcdef0-1", "0abcdef0-2", "0abcdef0-3"]


def test_text_of_the_task(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.verdicts[1] = TaskResult(
        TaskId(1), Status.ENGINE_DIED, engine=EngineId(0), stdout="b\n", stderr="oh\n"
    )
    ar = client[0].apply_async(where)
    write(ar.promises[0], "stdout", "a\n")
    assert (ar.stdout, ar.stderr) == ("a\n", "")
    session.run_all()
    assert (ar.stdout, ar.stderr, ar.metadata.stdout) == ("a\nb\n", "oh\n", "a\nb\n")
    write(ar.promises[0], "stdout", "late\n")
    assert ar.stdout == "a\nb\nlate\n"
    assert client[0, 1].apply_async(where).stdout == ["", ""]


def test_text_that_came_with_the_result_comes_again_with_the_record(
    parts: tuple[Client, FakeSession],
) -> None:
    """Whoever asks the Hub for a task of its own hears all of it again, and has it once."""
    client, session = parts
    ar = client[0].apply_async(where)
    session.verdicts[1] = TaskResult(TaskId(1), Status.OK, pack(0).inline, engine=EngineId(0), stdout="a\n")
    session.run_all()
    assert ar.stdout == "a\n"
    ar.promises[0].on_said(Output(TaskId(1), EngineId(0), "stdout", "a\n", RECORDED, 1))
    assert ar.stdout == "a\n"


def test_repr(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    good, bad = client[:].apply_async(where), client[0].apply_async(fail_on, 0)
    session.step()
    assert repr(good) == "<AsyncResult: where: 1 of 3 done>"
    session.run_all()
    assert repr(good) == "<AsyncResult: where: finished>"
    assert repr(bad) == "<AsyncResult: fail_on: failed>"


def test_a_time_out_spoils_nothing(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.is_held = True
    ar = client[:].apply_async(where)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            ar.get(0)
    session.is_held = False
    assert ar.get() == [0, 1, 2]
    assert ar.get(0) == [0, 1, 2]


def test_ctrl_c_while_waiting_spoils_nothing(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    ar = client[:].apply_async(where)
    wait_until = session.wait_until

    def interrupted(*_: Any) -> bool:
        raise KeyboardInterrupt

    session.wait_until = interrupted  # type: ignore[method-assign]
    for wait in (ar.get, ar.wait, lambda: list(ar), lambda: ar.wait(return_when="FIRST_COMPLETED")):
        with pytest.raises(KeyboardInterrupt):
            wait()
    session.wait_until = wait_until  # type: ignore[method-assign]
    assert ar.get() == [0, 1, 2]


def test_a_result_that_is_faster_than_its_registration(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    submit, ended = session.submit, []

    def fast(*arguments: Any) -> TaskId:
        first = submit(*arguments)
        session.run_all()  # all results are delivered before the caller learns the ids
        ended.append(first)
        return first

    session.submit = fast  # type: ignore[method-assign]
    seen: list[Any] = []
    origin = Origin("f", is_single=False, history=lambda first, count: seen.append((first, count)))
    ar = AsyncResult(session, origin, engines=[EngineId(0), EngineId(2)], tasks=2)
    ar.add_done_callback(lambda ar: seen.append(ar.metadata[1].msg_id))  # type: ignore[attr-defined]
    call = client[0]._calls().call(where, (), {})
    ar.on_submitted(
        session.submit(call.options, call.payload, call.blobs, ar.promises, (EngineId(0), EngineId(2)))
    )
    assert ar.get(0) == [0, 2]
    assert seen == ["0abcdef0-2", (ended[0], 2)]
    assert ar.metadata[1].status == "ok"


def test_two_threads_in_get(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.is_held = True
    ar = client[:].apply_async(where)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(ar.get())) for _ in range(2)]
    for thread in threads:
        thread.start()
    session.is_held = False
    session.notify()
    for thread in threads:
        thread.join(10)
    assert found == [[0, 1, 2]] * 2


def test_a_result_is_freed_with_its_last_reference(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    ar: AsyncResult | None = client[:].apply_async(where)
    session.run_all()
    assert ar is not None
    assert ar.get() == [0, 1, 2]
    gone = weakref.ref(ar)
    gc.disable()
    try:
        del ar
        assert gone() is None
    finally:
        gc.enable()


def test_a_delivery_that_is_made_twice(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    ar = client[0, 1].apply_async(where)
    first = session.waiting.pop(0)
    session.run(first)
    session.run(first)
    assert ar.progress == 1
    assert not ar.ready()
    session.run_all()
    assert ar.get() == [0, 1]


def test_wait_interactive_shows_a_bar(
    parts: tuple[Client, FakeSession], capsys: pytest.CaptureFixture[str]
) -> None:
    client, session = parts
    ar = client[:].apply_async(fail_on, 1)
    assert ar.wait_interactive() is True
    text = capsys.readouterr().err
    assert "fail_on: 100%" in text
    assert "3/3" in text
    assert "1 failed" in text
    session.is_held = True
    assert client[:].apply_async(where).wait_interactive(timeout=0) is False
