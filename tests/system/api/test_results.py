"""`AsyncResult`, `AsyncMapResult`, `AsyncHubResult`, metadata and errors, member by member."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import datetime
import gc
import io
import operator
import pickle
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import enginery as ipp
from tests.system.api.held import PATIENCE_S, Gate, from_main, wait_at

# ---------------------------------------------------------------- get, wait


def test_get_and_its_like(rc: ipp.Client) -> None:
    single, several = rc[0].apply_async(pow, 2, 3), rc[:].apply_async(pow, 2, 3)
    for ar, value in ((single, 8), (several, [8, 8])):
        assert ar.get() == ar.get(PATIENCE_S) == ar.get(timeout=None) == ar.get(timeout=-1) == value
        assert ar.result() == ar.result(PATIENCE_S) == ar.r == value
        assert ar.exception() is None
        assert (ar.ready(), ar.done(), ar.successful()) == (True, True, True)
        assert ar.wait() is ar.wait(0) is ar.wait(timeout=None) is True
        assert ar.cancelled() is False
        assert ar.running() is False


def test_what_is_asked_too_early(rc: ipp.Client, gate: Gate) -> None:
    ar = gate.hold(rc[:])
    started = time.monotonic()
    for ask in (ar.get, ar.result, ar.exception, ar.get_dict):
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError, match="has not ended"):
                ask(timeout)
    with pytest.raises(TimeoutError, match=r"has not ended after 0\.01 s"):
        ar.get(timeout=0.01)
    assert ar.wait(0) is ar.wait(timeout=0.01) is False
    assert ar.ready() is ar.done() is False
    with pytest.raises(RuntimeError, match="has not ended yet"):
        ar.successful()
    for name in ("serial_time", "wall_time"):
        with pytest.raises(TimeoutError, match=name):
            getattr(ar, name)
    for key in (0, slice(1), -1):
        with pytest.raises(TimeoutError):
            ar[key]
    assert time.monotonic() - started < 5
    gate.open()
    assert ar.get(timeout=PATIENCE_S) == ["through", "through"]


def test_errors_and_return_exceptions(rc: ipp.Client) -> None:
    single = rc[0].apply_async(operator.truediv, 1, 0)
    with pytest.raises(ZeroDivisionError):
        single.get(timeout=PATIENCE_S)
    assert isinstance(single.get(return_exceptions=True), ZeroDivisionError)
    assert isinstance(single.exception(), ZeroDivisionError)
    assert single.successful() is False
    rc[:].scatter("d", [1, 0], flatten=True, block=True)
    mixed = rc[:].apply_async(from_main("def f(): return 1 / d"))
    with pytest.raises(ZeroDivisionError) as caught:  # one error is raised itself
        mixed.get(timeout=PATIENCE_S)
    assert caught.value.engine_info["engine_id"] == 1
    good, bad = mixed.get(return_exceptions=True)
    assert good == 1.0
    assert isinstance(bad, ZeroDivisionError)
    both = rc[:].apply_async(operator.truediv, 1, 0)
    with pytest.raises(ipp.CompositeError):
        both.get(timeout=PATIENCE_S)
    assert isinstance(both.exception(), ipp.CompositeError)


def test_return_when(rc: ipp.Client, gates: Callable[[], Gate]) -> None:
    held, open_gate = gates(), gates()
    open_gate.open()
    lview = rc.load_balanced_view()
    ar = lview.map_async(wait_at, [held.path, open_gate.path], chunksize=1)
    done, pending = ar.wait(PATIENCE_S, return_when=ipp.FIRST_COMPLETED)
    assert len(done) == len(pending) == 1
    assert all(isinstance(part, ipp.AsyncResult) for part in done | pending)
    (part,) = done
    assert part.done()
    assert part.msg_ids[0] == ar.msg_ids[1]
    assert ar.get(PATIENCE_S, return_when=ipp.FIRST_COMPLETED) == ["through"]
    nothing_failed = ar.wait(0.01, return_when=ipp.FIRST_EXCEPTION)
    assert [len(parts) for parts in nothing_failed] == [1, 1]
    with pytest.raises(TimeoutError):
        ar.get(0.01, return_when=ipp.FIRST_EXCEPTION)
    held.open()
    done, pending = ar.wait(PATIENCE_S, return_when=ipp.ALL_COMPLETED)
    assert (len(done), len(pending)) == (2, 0)
    assert ar.get(return_when=ipp.ALL_COMPLETED) == ["through", "through"]
    with pytest.raises(ValueError, match="return_when"):
        ar.wait(0, return_when="SOME_TIME")


def test_first_exception_raises_early(rc: ipp.Client, gate: Gate) -> None:
    rc[:].scatter("path", [gate.path, None], flatten=True, block=True)
    ar = rc[:].apply_async(
        from_main("def f():\n    import fcntl\n    fcntl.flock(open(path), fcntl.LOCK_SH)\n    return 1")
    )
    with pytest.raises(TypeError):
        ar.get(timeout=PATIENCE_S, return_when=ipp.FIRST_EXCEPTION)
    assert not ar.done()
    done, pending = ar.wait(0, return_when=ipp.FIRST_EXCEPTION)
    assert (len(done), len(pending)) == (1, 1)
    gate.open()
    ar.wait(PATIENCE_S)
    rc.clear(block=True)


# ---------------------------------------------------------------- as a future


def test_it_is_a_future_of_the_standard_library(rc: ipp.Client) -> None:
    results = [rc[n % 2].apply_async(pow, 2, n) for n in range(6)]
    assert all(isinstance(ar, concurrent.futures.Future) for ar in results)
    assert sorted(done.result() for done in concurrent.futures.as_completed(results, PATIENCE_S)) == [
        1,
        2,
        4,
        8,
        16,
        32,
    ]
    done, pending = concurrent.futures.wait(results, PATIENCE_S)
    assert (done, pending) == (set(results), set())
    failing = rc[0].apply_async(int, "x")
    done, _ = concurrent.futures.wait([failing], PATIENCE_S, return_when=concurrent.futures.FIRST_EXCEPTION)
    assert done == {failing}


def test_callbacks(rc: ipp.Client) -> None:
    heard: list[Any] = []
    ar = rc[:].apply_async(pow, 2, 2)
    ar.add_done_callback(lambda future: heard.append(future.result()))
    ar.wait(PATIENCE_S)
    ar.add_done_callback(lambda future: heard.append("late"))
    assert ar._session.wait_until(lambda: len(heard) == 2, PATIENCE_S)
    assert sorted(map(str, heard)) == ["[4, 4]", "late"]


def test_it_can_be_awaited(rc: ipp.Client) -> None:
    async def main() -> tuple[Any, ...]:
        ar = rc[:].apply_async(pow, 2, 2)
        mapped = rc.load_balanced_view().map_async(abs, [-1, -2])
        return await ar, await asyncio.wrap_future(mapped), await ar

    assert asyncio.run(main()) == ([4, 4], [1, 2], [4, 4])


def test_cancel_takes_a_waiting_call_back(rc: ipp.Client, gate: Gate) -> None:
    gate.hold(rc[0])
    waiting = rc[0].apply_async(pow, 1, 1)
    assert waiting.cancel() is True
    with pytest.raises(ipp.TaskCancelled):
        waiting.get(timeout=PATIENCE_S)
    with pytest.raises(concurrent.futures.CancelledError):
        waiting.result()
    assert waiting.cancelled() is True
    gate.open()
    done = rc[0].apply_async(pow, 1, 1)
    done.wait(PATIENCE_S)
    assert done.cancel() is False
    assert done.cancelled() is False


# ---------------------------------------------------------------- by engine, by index, by key


def test_get_dict(rc: ipp.Client) -> None:
    ar = rc[1, 0].apply_async(pow, 2, 4)
    assert ar.get_dict(PATIENCE_S) == ar.result_dict == {0: 16, 1: 16}
    assert list(ar.get_dict()) == [1, 0]
    assert rc[1].apply_async(pow, 2, 4).get_dict() == {1: 16}
    twice = rc.load_balanced_view([0]).map_async(abs, [1, 2])
    with pytest.raises(ValueError, match="several"):
        twice.get_dict(PATIENCE_S)


def test_items_and_slices(rc: ipp.Client) -> None:
    ar = rc[:].map_async(abs, range(-6, 0))
    ar.wait(PATIENCE_S)
    assert (ar[0], ar[-1], ar[1:4], ar[::-2]) == (6, 1, [5, 4, 3], [1, 3, 5])
    for bad in (6, -7):
        with pytest.raises(IndexError):
            ar[bad]
    for bad in (1.0, None, (0, 1)):
        with pytest.raises(TypeError, match="indexed with"):
            ar[bad]
    several = rc[:].apply_async(pow, 2, 2)
    several.wait(PATIENCE_S)
    assert (several[1], several[:]) == (4, [4, 4])


def test_iteration_and_length(rc: ipp.Client) -> None:
    several = rc[:].apply_async(pow, 2, 2)
    assert (list(several), len(several)) == ([4, 4], 2)
    single = rc[0].apply_async(pow, 2, 2)
    assert len(single) == 1
    with pytest.raises(TypeError, match="nothing to iterate over"):
        iter(single)
    assert len(rc[:].map_async(abs, range(7))) == 7
    failing = iter(rc[:].map_async(operator.truediv, [1, 1, 1, 1], [1, 1, 0, 1]))
    assert [next(failing), next(failing)] == [1.0, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(failing)


KEYS = {
    "msg_id", "submitted", "started", "completed", "received", "engine_uuid", "engine_id", "follow", "after",
    "status", "execute_input", "execute_result", "error", "stdout", "stderr", "outputs", "data", "label",
    "is_broadcast", "is_coalescing", "report",
}  # fmt: skip


def test_all_keys_of_metadata(rc: ipp.Client) -> None:
    before = datetime.datetime.now(datetime.UTC)
    ar = rc.direct_view(1, label="labelled").execute("print('hello'); 6 * 7", silent=False)
    ar.wait_for_output(PATIENCE_S)
    metadata = ar.metadata
    assert set(metadata) == KEYS
    assert metadata.msg_id == ar.msg_ids[0]
    times = [metadata[key] for key in ("submitted", "started", "completed", "received")]
    assert all(moment.tzinfo is not None for moment in times)
    assert sorted([before, *times]) == [before, *times]
    assert (metadata.engine_id, metadata.status, metadata.label) == (1, "ok", "labelled")
    assert isinstance(metadata.engine_uuid, str)
    assert metadata.engine_uuid
    assert (metadata.follow, metadata.after, metadata.error) == ([], [], None)
    assert (metadata.stdout, metadata.stderr, metadata.data) == ("hello\n", "", {})
    assert metadata.execute_input == "print('hello'); 6 * 7"
    assert metadata.execute_result["data"]["text/plain"] == "42"


def test_metadata_by_key_and_attribute(rc: ipp.Client) -> None:
    single, several = rc[0].apply_async(pow, 1, 1), rc[:].apply_async(pow, 1, 1)
    rc.wait([single, several], PATIENCE_S)
    for key in KEYS:
        assert single[key] == single.metadata[key] == getattr(single.metadata, key)
        assert getattr(several, key) == several[key] == [one[key] for one in several.metadata]
    assert single.engine_id == 0
    assert several["engine_id"] == several.engine_id == [0, 1]
    for bad in ("colour", "Status"):
        with pytest.raises(KeyError, match=bad):
            single[bad]
        with pytest.raises(KeyError):
            single.metadata[bad]
        with pytest.raises(AttributeError, match=bad):
            getattr(single, bad)
        with pytest.raises(AttributeError):
            getattr(single.metadata, bad)


def test_metadata_before_the_end(rc: ipp.Client, gate: Gate) -> None:
    ar = gate.hold(rc[1])
    metadata = ar.metadata
    assert set(metadata) == KEYS
    assert (metadata.status, metadata.started, metadata.completed, metadata.received) == (None,) * 4
    assert (metadata.msg_id, metadata.engine_id) == (ar.msg_ids[0], 1)
    assert metadata.stdout == "begun\n"
    with pytest.raises(TimeoutError):
        ar.timedelta(ar.started, ar.completed)
    gate.open()
    ar.wait(PATIENCE_S)
    assert ar.metadata.status == "ok"


def test_metadata_of_what_failed(rc: ipp.Client, gate: Gate) -> None:
    failed = rc[0].apply_async(int, "x")
    failed.wait(PATIENCE_S)
    assert failed.status == "error"
    assert isinstance(failed.error, ValueError)
    gate.hold(rc[0])
    aborted = rc[0].apply_async(int)
    aborted.abort()
    aborted.wait(PATIENCE_S)
    assert aborted.status == "aborted"
    assert isinstance(aborted.error, ipp.TaskAborted)


# ---------------------------------------------------------------- times


def test_times(rc: ipp.Client) -> None:
    ar = rc[:].map_async(time.sleep, [0.05] * 4)
    ar.wait(PATIENCE_S)
    assert 0.2 <= ar.serial_time < 5
    assert 0.1 <= ar.wall_time < 5
    assert ar.elapsed == ar.wall_time
    assert ar.progress == len(ar) == 4
    assert 0.1 <= ar.timedelta(ar.submitted, ar.received) < 5
    assert ar.timedelta(ar.started, ar.completed) >= 0.1
    first, last = min(ar.started), max(ar.started)
    assert ar.timedelta(first, last) == (last - first).total_seconds()
    assert ar.timedelta(ar.started, ar.started, start_key=max, end_key=min) == -ar.timedelta(first, last)
    several = rc[:].apply_async(time.sleep, 0.02)
    several.wait(PATIENCE_S)
    assert several.progress == 2
    assert several.serial_time >= 0.04


def test_elapsed_and_progress_while_running(rc: ipp.Client, gates: Callable[[], Gate]) -> None:
    held, open_gate = gates(), gates()
    open_gate.open()
    ar = rc.load_balanced_view().map_async(wait_at, [held.path, open_gate.path], chunksize=1)
    assert ar._session.wait_until(lambda: ar.progress == 1, PATIENCE_S)
    first = ar.elapsed
    assert 0 <= first <= ar.elapsed < 60
    assert repr(ar) == "<AsyncMapResult: wait_at: 1 of 2 items>"
    partial = ar.partial()
    assert (partial.values, partial.missing, partial.failed) == ([None, "through"], [0], {})
    assert repr(partial) == "<Partial: 1 of 2 values, 1 missing, 0 failed>"
    held.open()
    assert ar.get(timeout=PATIENCE_S) == ["through", "through"]


# ---------------------------------------------------------------- sending


def test_sent_and_waiting_for_it(rc: ipp.Client) -> None:
    import numpy

    array = numpy.zeros(200_000)
    with rc.direct_view(0, track=True).temp_flags() as view:
        ar = view.apply_async(lambda a: float(a.sum()), array)
        assert ar.wait_for_send(PATIENCE_S) is True
        assert ar.wait_on_send() is True
        assert ar.sent is True
        array += 1
        assert ar.get(timeout=PATIENCE_S) == 0.0


# ---------------------------------------------------------------- output


def test_output_of_one_engine_and_of_several(rc: ipp.Client) -> None:
    single = rc[0].apply_async(lambda: print("one"))
    several = rc[:].execute("import sys; print('a'); print('b', file=sys.stderr)")
    assert single.wait_for_output(PATIENCE_S) is several.wait_for_output() is True
    assert (single.stdout, single.stderr) == ("one\n", "")
    assert (several.stdout, several.stderr) == (["a\n"] * 2, ["b\n"] * 2)


def test_wait_for_output_ends_in_time(rc: ipp.Client, gate: Gate) -> None:
    ar = gate.hold(rc[0])
    assert ar.wait_for_output(0.01) is False
    gate.open()
    assert ar.wait_for_output(PATIENCE_S) is True
    assert ar.stdout == "begun\n"


def test_stream_output_shows_text_while_it_comes(
    rc: ipp.Client, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = io.StringIO()
    ar = rc[0].apply_async(wait_at, gate.path)
    real, sys.stdout = sys.stdout, shown
    try:
        with ar.stream_output():
            assert ar._session.wait_until(lambda: shown.getvalue() == "begun\n", PATIENCE_S)
            assert not ar.done()
            gate.open()
            ar.wait(PATIENCE_S)
    finally:
        sys.stdout = real
    assert shown.getvalue() == "begun\n"


def test_display_outputs(rc: ipp.Client, capsys: pytest.CaptureFixture[str]) -> None:
    ar = rc[:].execute("import sys; print('out'); print('err', file=sys.stderr); 'value'", silent=False)
    shown = {}
    for groupby in ("type", "engine", "order"):
        ar.display_outputs(groupby)
        shown[groupby] = capsys.readouterr()
        for found in ("[stdout:0] out", "[stdout:1] out"):
            assert found in shown[groupby].out
        assert "[stderr:1] err" in shown[groupby].err
        assert "'value'" in shown[groupby].out
    lines = shown["type"].out.splitlines()
    assert lines.index("[stdout:1] out") == lines.index("[stdout:0] out") + 1
    ar.display_outputs(result_only=True)
    only = capsys.readouterr()
    assert "stdout" not in only.out
    assert "'value'" in only.out
    with pytest.raises(ValueError, match="groupby"):
        ar.display_outputs("colour")


def test_wait_interactive(rc: ipp.Client, gate: Gate) -> None:
    ar = gate.hold(rc[:])
    assert ar.wait_interactive(interval=0.01, timeout=0.05) is False
    assert ar.wait_interactive(0.01, 0.02, widget=False, return_when=ipp.FIRST_COMPLETED) is False
    gate.open()
    assert ar.wait_interactive(timeout=PATIENCE_S) is True
    assert rc[:].map_async(abs, [1, 2]).wait_interactive(widget=False) is True


# ---------------------------------------------------------------- taking back, parts


def test_abort_of_a_result(rc: ipp.Client, gate: Gate) -> None:
    held = gate.hold(rc[:])
    waiting = rc[:].apply_async(pow, 1, 1)
    waiting.abort()
    with pytest.raises(ipp.TaskAborted):
        waiting.get(timeout=PATIENCE_S)
    held.abort()  # what runs goes on
    gate.open()
    assert held.get(timeout=PATIENCE_S) == ["through"] * 2
    with pytest.raises(RuntimeError, match="nothing to abort"):
        held.abort()


def test_split_and_join(rc: ipp.Client) -> None:
    ar = rc[:].apply_async(pow, 2, 5)
    parts = ar.split()
    assert isinstance(parts, tuple)
    assert [part.get(PATIENCE_S) for part in parts] == [32, 32]
    assert [part.msg_ids for part in parts] == [[one] for one in ar.msg_ids]
    assert ar.split() == parts
    joined = ipp.AsyncResult.join(*parts)
    assert joined.get(PATIENCE_S) == [32, 32]
    assert joined.msg_ids == ar.msg_ids
    single = rc[0].apply_async(pow, 3, 3)
    assert [part.get(PATIENCE_S) for part in single.split()] == [27]
    assert ipp.AsyncResult.join(single, ar).get(PATIENCE_S) == [27, 32, 32]
    with pytest.raises(ValueError, match="at least one"):
        ipp.AsyncResult.join()
    with pytest.raises(TypeError):
        ipp.AsyncResult.join(3)  # type: ignore[arg-type]


def test_ids_and_owner(rc: ipp.Client) -> None:
    ar = rc[:].apply_async(pow, 1, 1)
    assert all(isinstance(one, str) for one in ar.msg_ids)
    assert len(set(ar.msg_ids)) == 2
    assert ar.owner is True
    with pytest.raises(AttributeError):
        ar.msg_ids = []  # type: ignore[misc]


def test_reprs(rc: ipp.Client) -> None:
    ar = rc[:].apply_async(pow, 1, 1)
    ar.wait(PATIENCE_S)
    assert repr(ar) == "<AsyncResult: pow: finished>"
    failed = rc[0].apply_async(int, "x")
    failed.wait(PATIENCE_S)
    assert repr(failed) == "<AsyncResult: int: failed>"


def test_a_result_is_freed_with_its_last_name(rc: ipp.Client) -> None:
    ar = rc[0].apply_async(bytes, 100_000)
    ar.get(timeout=PATIENCE_S)
    assert ar.metadata.status == "ok"
    reference = weakref.ref(ar)
    gc.disable()
    try:
        del ar
        assert reference() is None
    finally:
        gc.enable()


# ---------------------------------------------------------------- errors


class Refusal(Exception):
    """An error whose constructor wants something else than its arguments."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code, self.reason = code, reason


def refuse() -> None:
    raise Refusal(7, reason="because")


def test_a_remote_error(rc: ipp.Client) -> None:
    with pytest.raises(ipp.RemoteError) as caught:
        rc[1].apply_sync(
            from_main("def outer():\n    inner()\ndef inner():\n    raise LookupError('gone')", "outer")
        )
    error = caught.value
    assert isinstance(error, LookupError)
    assert (error.ename, error.evalue) == ("LookupError", "gone")
    assert error.args == ("gone",)
    assert "in outer" in error.traceback
    assert "in inner" in error.traceback
    assert error.engine_info["engine_id"] == error.engine == 1
    assert set(error.engine_info) >= {"engine_id", "engine_uuid", "method"}
    assert str(error).startswith("LookupError(gone)\n")
    assert "on engine 1" in str(error)
    assert error.render_traceback()[-1] == "LookupError: gone"
    assert error._render_traceback_() == error.render_traceback()
    shown = io.StringIO()
    error.print_traceback(file=shown)
    assert shown.getvalue().splitlines() == error.render_traceback()


def test_errors_of_every_kind_come_back_as_what_they_are(rc: ipp.Client) -> None:
    def raise_it(error: BaseException) -> None:
        raise error

    for error in (
        ValueError("a", 1),
        KeyError("k"),
        OSError(2, "No such file", "name"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        StopIteration(3),
    ):
        found = rc[0].apply_async(raise_it, error).exception(PATIENCE_S)
        assert isinstance(found, ipp.RemoteError)
        assert found.ename == type(error).__name__
        if isinstance(error, StopIteration):
            assert isinstance(found.__cause__, StopIteration)
            continue
        assert isinstance(found, type(error))
        assert found.args == error.args
    group = (
        rc[0]
        .apply_async(raise_it, ExceptionGroup("two", [ValueError(1), TypeError(2)]))
        .exception(PATIENCE_S)
    )
    assert isinstance(group, ExceptionGroup)
    with pytest.raises(ExceptionGroup) as caught:
        raise group
    assert caught.group_contains(ValueError)
    assert caught.group_contains(TypeError)
    refusal = rc[0].apply_async(refuse).exception(PATIENCE_S)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.reason, refusal.args) == (7, "because", ("7: because",))
    os_error = rc[0].apply_async(open, "/no/such/file").exception(PATIENCE_S)
    assert isinstance(os_error, FileNotFoundError)
    assert os_error.filename == "/no/such/file"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_means_something_to_the_interpreter_is_not_raised_here(
    rc: ipp.Client, error: type[BaseException]
) -> None:
    found = rc[0].apply_async(from_main(f"def f(): raise {error.__name__}(3)")).exception(PATIENCE_S)
    assert type(found) is ipp.RemoteError
    assert found.ename == error.__name__
    assert rc[0].apply_sync(pow, 2, 2) == 4  # the engine is still there


def test_a_remote_error_can_be_pickled_and_copied(rc: ipp.Client) -> None:
    error = rc[0].apply_async(int, "x").exception(PATIENCE_S)
    assert error is not None
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert isinstance(again, ValueError)
        assert isinstance(again, ipp.RemoteError)
        assert str(again) == str(error)


def test_a_composite_error(rc: ipp.Client, capsys: pytest.CaptureFixture[str]) -> None:
    rc[:].scatter("n", [0, 1], flatten=True, block=True)
    ar = rc[:].apply_async(from_main("def f():\n    if n: raise KeyError('k')\n    1 / n"))
    error = ar.exception(PATIENCE_S)
    assert isinstance(error, ipp.CompositeError)
    assert [entry[:2] for entry in error.elist] == [
        ("ZeroDivisionError", "division by zero"),
        ("KeyError", "'k'"),
    ]
    assert [entry[3]["engine_id"] for entry in error.elist] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        error.raise_exception()
    with pytest.raises(KeyError):
        error.raise_exception(1)
    with pytest.raises(IndexError):
        error.raise_exception(2)
    error.print_traceback()
    both = capsys.readouterr().out
    assert both.count("Traceback") == 2
    error.print_traceback(1)
    one = capsys.readouterr().out
    assert "engine 1: KeyError('k')" in one
    assert "ZeroDivision" not in one
    caught: list[ipp.CompositeError] = []
    try:
        raise error
    except* ZeroDivisionError as group:
        caught.append(group)
    except* KeyError as group:
        caught.append(group)
    assert [(type(group), len(group.exceptions)) for group in caught] == [(ipp.CompositeError, 1)] * 2
    rc.clear(block=True)


def test_equal_tracebacks_are_shown_once(rc: ipp.Client) -> None:
    error = rc[:].apply_async(operator.truediv, 1, 0).exception(PATIENCE_S)
    assert isinstance(error, ipp.CompositeError)
    assert "\n".join(error.render_traceback()).count("Traceback") == 1
    assert "engines 0, 1: ZeroDivisionError(division by zero)" in str(error)
    assert error.tb_limit == 4


def test_error_classes_and_their_kin() -> None:
    for child, parents in {
        ipp.RemoteError: (ipp.KernelError, ipp.IPythonError, Exception),
        ipp.CompositeError: (ipp.RemoteError, ExceptionGroup),
        ipp.AlreadyDisplayedError: (ipp.RemoteError,),
        ipp.EngineError: (ipp.KernelError, ipp.RemoteError),
        ipp.EngineLost: (ipp.EngineError,),
        ipp.NoEnginesRegistered: (ipp.KernelError,),
        ipp.TaskAborted: (ipp.KernelError, ipp.RemoteError),
        ipp.TaskCancelled: (ipp.RemoteError, concurrent.futures.CancelledError),
        ipp.TaskTimeout: (ipp.KernelError, ipp.RemoteError),
        ipp.TimeLimitExceeded: (ipp.TaskTimeout,),
        ipp.UnmetDependency: (ipp.KernelError, ipp.RemoteError),
        ipp.ImpossibleDependency: (ipp.UnmetDependency,),
        ipp.DependencyTimeout: (ipp.ImpossibleDependency, ipp.TaskTimeout),
        ipp.InvalidDependency: (ipp.ImpossibleDependency,),
        ipp.TaskRejectError: (ipp.KernelError,),
    }.items():
        assert issubclass(child, parents)
    assert ipp.TimeoutError is TimeoutError
    assert ipp.AbortedTask is ipp.TaskAborted
    for name in ("RemoteError", "CompositeError", "TaskAborted", "ImpossibleDependency", "wrap_exception"):
        assert getattr(ipp.error, name) is getattr(ipp, name)
    shown = ipp.AlreadyDisplayedError(ipp.CompositeError("2 failed", [ValueError(1), KeyError(2)]))
    assert str(shown) == "2 errors"


# ---------------------------------------------------------------- of other clients


def test_a_hub_result_has_the_same_members(rc: ipp.Client, another: ipp.Client) -> None:
    with another.label("of another"):
        made = another[:].apply_async(pow, 2, 6)
    failed = another[0].apply_async(int, "x")
    another.wait([made, failed], PATIENCE_S)
    ar = rc.get_result(made.msg_ids)
    assert isinstance(ar, ipp.AsyncHubResult)
    assert isinstance(ar, ipp.AsyncResult)
    assert (ar.get(PATIENCE_S), ar.r, ar.successful(), ar.ready()) == ([64, 64], [64, 64], True, True)
    assert ar.msg_ids == made.msg_ids
    assert ar.get_dict() == {0: 64, 1: 64}
    assert (len(ar), list(ar), ar[0], ar[:]) == (2, [64, 64], 64, [64, 64])
    assert ar["label"] == ["of another"] * 2
    assert ar.engine_id == [0, 1]
    assert ar.progress == 2
    assert ar.serial_time >= 0
    assert ar.wall_time >= 0
    assert ar.timedelta(ar.submitted, ar.received) >= 0
    assert set(ar.metadata[0]) == KEYS
    assert [part.get(PATIENCE_S) for part in ar.split()] == [64, 64]
    assert ar.wait(0, return_when=ipp.ALL_COMPLETED)[1] == set()
    single = rc.get_result(failed.msg_ids[0])
    with pytest.raises(ValueError, match="invalid literal"):
        single.get(PATIENCE_S)
    assert single.status == "error"
    assert isinstance(single.get(return_exceptions=True), ValueError)


def test_a_hub_result_waits_for_what_runs(rc: ipp.Client, another: ipp.Client, gate: Gate) -> None:
    held = gate.hold(another[0])
    ar = rc.get_result(held.msg_ids[0])
    assert ar.wait(0.01) is False
    with pytest.raises(TimeoutError):
        ar.get(0.01)
    heard: list[Any] = []
    ar.add_done_callback(lambda future: heard.append(future.result()))
    gate.open()
    assert ar.get(PATIENCE_S) == "through"
    assert ar._session.wait_until(lambda: heard == ["through"], PATIENCE_S)
