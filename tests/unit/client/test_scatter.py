"""Parts of sequences on engines: scatter, gather, reduce, starmap."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest

from enginery.client.client import Client
from enginery.client.results import AsyncMapResult, AsyncResult
from enginery.client.views import View
from enginery.errors import ClientClosed, CompositeError, EngineError, NoEnginesRegistered
from enginery.ids import TaskId
from enginery.objects.packing import Packed, unpack
from enginery.protocol.messages import Status, TaskResult
from tests.unit.client.fake_session import FakeSession, make_client


@pytest.fixture
def parts() -> tuple[Client, FakeSession]:
    return make_client((0, 1, 4))


# ---------------------------------------------------------------- scatter


def test_scatter(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    view = rc[:]
    assert view.scatter("a", range(8), block=True) == [None, None, None]
    assert view["a"] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    ar = view.scatter("b", "abcdefgh", dist="r")
    assert type(ar) is AsyncResult
    assert ar.get() == [None] * 3
    assert view["b"] == ["adg", "beh", "cf"]
    assert view.history[:3] == view.client.history[:3]
    assert len(ar.msg_ids) == 3
    assert ar.msg_ids == view.history[6:9]
    assert ar.engine_id == [0, 1, 4]
    assert rc[0].scatter("a", [1, 2], block=True) == [None]
    assert rc[0]["a"] == [1, 2]


def test_scatter_to_fewer_and_to_more(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    view = rc[:]
    view.scatter("a", [1], block=True)
    assert view["a"] == [[1], [], []]
    view.scatter("a", [], block=True)
    assert view["a"] == [[], [], []]
    view.scatter("a", (1, 2, 3, 4), flatten=True, block=True)
    assert view["a"] == [(1, 2), 3, 4]
    view.scatter("a", {7: 1}, flatten=True, targets=[4, 0], block=True)
    assert rc[4]["a"] == 7
    assert rc[0]["a"] == []
    assert rc[1]["a"] == 3


def test_parts_of_an_array_are_not_copied(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    items = np.arange(300_000)
    rc[:].scatter("a", items, block=True)
    for number, call in enumerate(session.submissions):
        data = np.frombuffer(call.blobs[0].data, items.dtype)
        assert np.shares_memory(data, items)
        assert data[0] == number * 100_000
    assert np.array_equal(rc[:].gather("a", block=True), items)


def test_an_expression_as_a_name(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    view = rc[:]
    view.push({"d": {}}, block=True)
    view.scatter("d['x']", [1, 2, 3], block=True)
    assert view["d"] == [{"x": [1]}, {"x": [2]}, {"x": [3]}]
    assert view.gather("d['x'][:1]", block=True) == [1, 2, 3]


def test_a_part_that_cannot_be_sent_leaves_nothing_outstanding(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    with pytest.raises(TypeError, match="argument 'a', of type list, cannot be sent"):
        rc[:].scatter("a", [1, 2, (x for x in "abc")])
    assert session.submissions == []


def test_a_client_that_closes_during_scatter(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    view = rc[:]
    submit = session.submit

    def submit_and_end(*args: Any, **options: Any) -> TaskId:
        task = submit(*args, **options)
        if len(session.submissions) == 2:
            session.close()
        return task

    session.submit = submit_and_end  # type: ignore[method-assign]
    with pytest.raises(ClientClosed):
        view.scatter("a", [1, 2, 3])
    assert session.outstanding() == set()


def test_an_interrupt_during_scatter_takes_back_what_was_sent(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    submit = session.submit

    def submit_once(*args: Any, **options: Any) -> TaskId:
        if session.submissions:
            raise KeyboardInterrupt
        return submit(*args, **options)

    session.submit = submit_once  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        rc[:].scatter("a", [1, 2, 3])
    assert len(session.submissions) == 1
    assert session.outstanding() == set()


def test_an_engine_that_leaves_during_scatter(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    session.verdicts[2] = TaskResult(TaskId(0), Status.ENGINE_DIED, detail="killed by SIGKILL")
    with pytest.raises(EngineError, match="killed by SIGKILL"):
        rc[:].scatter("a", range(6), block=True)
    assert rc[0, 4]["a"] == [[0, 1], [4, 5]]


def test_bad_input_of_scatter(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    for call, error, text in (
        (lambda: rc[:].scatter(3, [1]), TypeError, "scatter: names must be texts, not 3"),
        (lambda: rc[:].scatter("a", 3), TypeError, "a sequence is needed, not 3"),
        (lambda: rc[:].scatter("a", [1], dist="x"), ValueError, "dist is 'b'"),
        (lambda: rc[:].scatter("a", [1], targets=9), IndexError, "there is no engine 9"),
        (lambda: rc[:].gather(3), TypeError, "gather: names must be texts, not 3"),
        (lambda: rc[:].gather("a", dist="x"), ValueError, "dist is 'b'"),
    ):
        with pytest.raises(error, match=text):
            call()
    assert session.submissions == []
    session.leave(0, 1, 4)
    with pytest.raises(NoEnginesRegistered):
        rc.direct_view().scatter("a", [1])


# ---------------------------------------------------------------- gather


def test_gather(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    view = rc[:]
    view.scatter("a", range(8)).get()
    assert view.gather("a", block=True) == list(range(8))
    ar = view.gather("a")
    assert isinstance(ar, AsyncMapResult)
    assert list(ar) == list(range(8))
    assert ar.get() == list(range(8))
    assert ar.get_dict() == {0: [[0, 1, 2]], 1: [[3, 4, 5]], 4: [[6, 7]]}
    assert ar.msg_ids == view.history[-3:]
    assert ar.engine_id == [0, 1, 4]
    assert rc[4].gather("a", block=True) == [6, 7]
    assert view.gather("a", targets=[4, 0], block=True) == [6, 7, 0, 1, 2]
    view.scatter("a", range(8), "r").get()
    assert view.gather("a", "r", block=True) == list(range(8))
    assert list(view.gather("a", "r")) == list(range(8))
    session.run_all()


def test_items_of_a_gather_come_part_by_part(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    view = rc[:]
    view.scatter("a", range(6)).get()
    ar = view.gather("a")
    session.is_held = True
    session.run(session.waiting.pop(0))
    items = iter(ar)
    assert (next(items), next(items)) == (0, 1)
    assert ar.progress == 1
    assert not ar.done()
    with pytest.raises(TimeoutError, match="gather has not ended"):
        ar.get(timeout=0)
    session.is_held = False
    assert list(items) == [2, 3, 4, 5]


def test_a_part_that_fails(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    view = rc[:]
    view.push({"a": [1, 2]}, targets=[0, 4], block=True)
    with pytest.raises(NameError, match="a"):
        view.gather("a", block=True)
    ar = view.gather("a")
    items = iter(ar)
    assert (next(items), next(items)) == (1, 2)
    with pytest.raises(NameError):
        next(items)
    found = ar.get(return_exceptions=True)
    assert found[:2] == found[3:] == [1, 2]
    assert isinstance(found[2], NameError)
    with pytest.raises(CompositeError, match="3 of 3"):
        view.gather("nothing", block=True)


# ---------------------------------------------------------------- starmap, reduce


@pytest.fixture(params=["direct", "balanced"])
def view(request: pytest.FixtureRequest, parts: tuple[Client, FakeSession]) -> View:
    return parts[0][:] if request.param == "direct" else parts[0].load_balanced_view()


def test_starmap(view: View) -> None:
    assert view.starmap(pow, [(2, 5), (3, 2), [10, 3]]).get() == [32, 9, 1000]
    assert view.starmap(pow, ((n, 2) for n in range(4)), block=True) == [0, 1, 4, 9]
    assert view.starmap(max, [(1, 2), (1, 2, 3)], block=True, label="x") == [2, 3]
    assert view.starmap(pow, [], block=True) == []
    ar = view.starmap(pow, [(1, 2), (1,)], return_exceptions=True)
    assert ar.get()[0] == 1
    assert isinstance(ar.get()[1], TypeError)
    assert view.starmap(pow, [(1, 2)], label="x").label == ["x"]
    with pytest.raises(TypeError, match="a function is needed, not 3"):
        view.starmap(3, [])  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 2, 3, 20, 100])
def test_reduce(view: View, count: int) -> None:
    words = [chr(ord("a") + number % 26) for number in range(count)]
    assert view.reduce(operator.add, words) == "".join(words)  # in order: it does not commute
    assert view.reduce(operator.add, words, "<") == "<" + "".join(words)
    assert view.reduce(operator.add, range(count), 0) == sum(range(count))
    assert view.reduce(operator.add, np.arange(count)) == sum(range(count))
    assert view.reduce(operator.add, iter(words)) == "".join(words)


def test_reduce_runs_on_engines_alone(view: View, parts: tuple[Client, FakeSession]) -> None:
    parts[0][:].push({"scale": 10}, block=True)
    function = eval("lambda a, b: a + b * scale", {"__name__": "__main__"})
    assert view.reduce(function, [1, 2]) == 21


def test_reduce_of_nothing(view: View) -> None:
    assert view.reduce(operator.add, [], 7) == 7
    with pytest.raises(TypeError, match="reduce of an empty sequence needs an initial value"):
        view.reduce(operator.add, [])
    with pytest.raises(TypeError, match="one initial value, not 2"):
        view.reduce(operator.add, [1], 2, 3)
    with pytest.raises(TypeError, match="a sequence is needed, not 3"):
        view.reduce(operator.add, 3)  # type: ignore[arg-type]


def test_reduce_in_parallel(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    assert rc[:].reduce(operator.add, range(9)) == 36
    first, second, third, last = [unpack(*packed(call)) for call in session.submissions]
    assert [list(columns[0][0]) for columns in (first, second, third)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert last == ([[3, 12, 21]],)


def packed(call: Any) -> Packed:
    return Packed(call.payload, [blob.data for blob in call.blobs if blob.blob_id != call.options.function])


def test_a_reduction_that_fails(view: View) -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        view.reduce(operator.add, [1, "a"])
