"""Views: identity, attributes, names, execute; what reaches the function."""

from __future__ import annotations

import gc
import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enginery.client.client import Client
from enginery.client.views import BroadcastView, DirectView, LoadBalancedView
from enginery.errors import CompositeError, NoEnginesRegistered, RemoteError, UnmetDependency
from enginery.objects.dependent import require
from enginery.objects.libraries import in_use
from enginery.objects.reference import Reference
from enginery.protocol.messages import Kind
from tests.unit.client.fake_session import FakeSession, make_client


@pytest.fixture
def parts() -> tuple[Client, FakeSession]:
    return make_client((0, 1, 4))


def keywords(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
    return args, kwargs


# ---------------------------------------------------------------- identity


def test_one_object_for_each_class_and_targets(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    same: list[tuple[Callable[[], Any], Callable[[], Any]]] = [
        (lambda: rc[0, 1], lambda: rc[[0, 1]]),
        (lambda: rc[:], lambda: rc[0, 1, 4]),
        (lambda: rc[-1], lambda: rc[4]),
        (lambda: rc[::2], lambda: rc[0, 4]),
        (lambda: rc[0:2], lambda: rc[range(2)]),
        (lambda: rc.direct_view("all"), rc.direct_view),
        (lambda: rc.load_balanced_view([1, 4]), lambda: rc.load_balanced_view((1, -1))),
        (rc.load_balanced_view, lambda: rc.load_balanced_view("all")),
        (lambda: rc.load_balanced_view(1), lambda: rc.load_balanced_view([1])),
        (lambda: rc.direct_view(0, block=True), lambda: rc.direct_view(0, block=True)),
        (lambda: rc.view([0]), lambda: rc.direct_view([0])),
    ]
    for left, right in same:
        view = left()
        assert view is right()
    for one, other in (
        (rc[0], rc[[0]]),
        (rc[0, 1], rc[1, 0]),
        (rc[:], rc.direct_view()),
        (rc[0], rc.direct_view(0, block=True)),
        (rc[0], rc.load_balanced_view(0)),
    ):
        assert one is not other


def test_a_slice_is_evaluated_once_and_all_at_each_call(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    everywhere, now = rc.direct_view(), rc[:]
    assert len(everywhere) == len(now) == 3
    session.join(5)
    session.leave(0)
    assert len(everywhere) == 3
    assert everywhere.apply_sync(int) == [0, 0, 0]
    assert everywhere.apply_async(int).engine_id == [1, 4, 5]
    assert now.targets == [0, 1, 4]
    assert rc[:].targets == [1, 4, 5]
    with pytest.raises(IndexError, match="there is no engine 0; the engines are"):
        _ = rc[0]


def test_views_that_nobody_holds_are_let_go(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    rc[0].block = True
    gc.collect()
    assert rc[0].block is False
    assert len(rc._views) == 0


def test_repr(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    assert repr(rc[0]) == "<DirectView 0>"
    assert repr(rc[0, 1]) == "<DirectView [0,1]>"
    assert repr(rc.direct_view()) == "<DirectView all>"
    assert repr(rc.load_balanced_view([1, 4])) == "<LoadBalancedView [1,4]>"
    assert repr(rc.load_balanced_view()) == "<LoadBalancedView None>"


def test_targets_are_a_copy_and_cannot_be_changed(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    view = rc[0, 1]
    view.targets.append(4)
    assert view.targets == [0, 1]
    view.targets = [0, 1]
    view.targets = (0, 1)
    with pytest.raises(AttributeError, match=r"targets of <DirectView \[0,1\]> cannot be changed to 0"):
        view.targets = 0
    balanced = rc.load_balanced_view()
    balanced.targets = None
    with pytest.raises(AttributeError):
        balanced.targets = [0]
    assert rc[0].targets == 0
    assert rc.direct_view().targets == "all"
    assert balanced.targets is None


def test_flags(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    view = rc.load_balanced_view([1], label="night", retries=3, priority=-2, block=True, track=True)
    assert (view.label, view.retries, view.priority, view.block, view.track) == ("night", 3, -2, True, True)
    assert view.apply(int) == 0
    options = session.submissions[-1].options
    assert (options.label, options.retries, options.priority, options.candidates) == ("night", 3, -2, (1,))
    view.label = "day"
    view.retries = 0
    view.apply(int)
    options = session.submissions[-1].options
    assert (options.label, options.retries) == ("day", 0)
    with pytest.raises(
        KeyError, match="'nonsense' is no flag of a DirectView; the flags of a DirectView are block"
    ):
        rc.direct_view(0, nonsense=1)
    with pytest.raises(TypeError, match=r"retries must be a whole number, not 1\.5"):
        view.retries = 1.5  # type: ignore[assignment]
    with pytest.raises(ValueError, match="retries must not be negative"):
        rc.direct_view(0, retries=-1)
    rc.block = True
    assert rc[4].block is True


# ---------------------------------------------------------------- apply


@pytest.mark.parametrize("is_balanced", [True, False])
def test_every_keyword_reaches_the_function(parts: tuple[Client, FakeSession], is_balanced: bool) -> None:
    rc, _ = parts
    view = rc.load_balanced_view() if is_balanced else rc[0]
    given = {"f": 1, "self": 2, "block": 3, "args": 4, "kwargs": 5, "targets": 6, "function": 7}
    assert view.apply_sync(keywords, 0, **given) == ((0,), given)
    assert view.apply_async(keywords, **given).get() == ((), given)
    assert view.apply(keywords, **given).get() == ((), given)
    view.block = True
    assert view.apply(keywords, **given) == ((), given)


def test_a_call_of_what_is_no_function(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    for view in (rc[0], rc.load_balanced_view()):
        with pytest.raises(TypeError, match="a function is needed, not 3"):
            view.apply(3)
    with pytest.raises(TypeError, match="argument 0, of type generator, cannot be sent"):
        rc[0].apply(int, (number for number in range(3)))
    assert session.submissions == []
    assert rc.history == []


def test_lambdas_see_the_engines_names(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    function = eval("lambda x: x + engine", {"__name__": "__main__"})
    assert rc[:].apply_sync(function, 1) == [1, 2, 5]


# ---------------------------------------------------------------- names and code


def test_names(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    view = rc[:]
    view["a"] = 7
    assert view["a"] == [7, 7, 7]
    assert rc[0]["a"] == 7
    assert rc[1].get("a") == 7
    assert view["a + engine"] == [7, 8, 11]
    assert view.push({"b": [1], "c": 2}, block=True) == [None] * 3
    assert view.pull(["b", "c"], block=True) == [[[1], 2]] * 3
    assert view.pull(("c",), targets=0, block=True) == [2]
    assert view.pull("c", targets=[1], block=True) == [2]
    assert view.pull("c").get() == [2, 2, 2]
    assert view.update({"c": 3}).get() == [None] * 3
    assert rc[0].push({"d": 1}).get() is None
    session.run_all()
    kinds = [call.options.kind for call in session.submissions]
    assert kinds[0] is Kind.PUSH
    assert kinds[1] is Kind.PULL


def test_a_name_that_is_not_there(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    with pytest.raises(NameError, match="nothing"):
        _ = rc[0]["nothing"]
    with pytest.raises(CompositeError, match="3 of 3 calls of pull failed"):
        _ = rc[:]["nothing"]


def test_bad_names(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    view = rc[:]
    for call, text in (
        (lambda: view.push([1]), "push needs a dictionary of names and values, not"),
        (lambda: view.push({1: 2}), "push: names must be texts, not 1"),
        (lambda: view.pull(3), "pull needs a name or a list of names, not 3"),
        (lambda: view.pull(["a", 3]), "pull: names must be texts, not 3"),
        (lambda: view.execute(3), "execute needs source text, not 3"),
        (lambda: list(view), "'DirectView' object is not iterable"),
    ):
        with pytest.raises(TypeError, match=text):
            call()
    assert session.submissions == []


def test_execute(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    view = rc[:]
    ar = view.execute("x = engine * 2", label="step")
    assert [repr(reply) for reply in ar.get()] == ["<ExecuteReply[0]: >"] * 3
    assert [reply.engine_id for reply in ar.get()] == [0, 1, 4]
    assert view["x"] == [0, 2, 8]
    assert [entry.execute_input for entry in ar.metadata] == ["x = engine * 2"] * 3
    assert ar.label == ["step"] * 3
    assert rc[0].execute("y = 1", block=True).ready()
    assert rc[:].execute("z = 1", targets=4, block=True).engine_id == 4
    with pytest.raises(ZeroDivisionError) as caught:
        rc[0].execute("1/0", block=True)
    assert isinstance(caught.value, RemoteError)
    assert "1/0" in caught.value.traceback


def test_a_balanced_view_has_no_names(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    view = rc.load_balanced_view()
    for name in ("push", "pull", "execute", "update", "get", "__getitem__", "__setitem__"):
        assert not hasattr(view, name)


def test_without_engines() -> None:
    rc, _ = make_client(())
    with pytest.raises(NoEnginesRegistered):
        _ = rc[:]
    with pytest.raises(NoEnginesRegistered):
        rc.direct_view().apply(int)
    assert len(rc.direct_view()) == 0
    balanced = rc.load_balanced_view()
    for call in (lambda: balanced.apply_async(int), lambda: balanced.map_async(abs, [1])):
        with pytest.raises(NoEnginesRegistered):  # nobody might ever come to run it
            call()


# ---------------------------------------------------------------- about calls


def test_history_outstanding_wait_abort(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    view, other = rc[0, 1], rc.load_balanced_view()
    first, second = view.apply_async(int), other.map_async(abs, [1, 2])
    assert view.history == first.msg_ids
    assert other.history == second.msg_ids
    assert view.outstanding == set(first.msg_ids)
    assert view.wait(timeout=0) is False
    view.abort()
    assert first.done()
    assert not second.done()
    assert other.wait() is True
    assert second.done()
    assert other.outstanding == set()
    assert session.outstanding() == set()
    assert rc.history == first.msg_ids + second.msg_ids


def test_classes(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    assert type(rc[0]) is DirectView
    assert type(rc.load_balanced_view()) is LoadBalancedView
    assert rc[0].client is rc


def test_jobs_are_indices_into_the_views_history(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    view, other = rc[0], rc[1]
    mine, others, last = view.apply_async(abs, -1), other.apply_async(abs, -2), view.apply_async(abs, -3)
    assert view.get_result(0).msg_ids == mine.msg_ids
    assert view.get_result().msg_ids == last.msg_ids
    assert view.get_result([0, others.msg_ids[0], last]).get() == [1, 2, 3]
    assert view.get_result(slice(None)).msg_ids == view.history
    assert view.get_result(-1, block=True).get() == 3
    assert view.get_result(mine) is mine
    assert view.wait(1) is True
    with pytest.raises(IndexError, match=r"no task 2 in the history of <DirectView 0>, which has 2 tasks"):
        view.get_result(2)
    with pytest.raises(IndexError, match="no task -1 in the history"):
        rc[4].get_result()


def test_what_a_view_asks_of_its_client(
    parts: tuple[Client, FakeSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    rc, _ = parts
    asked: list[Any] = []

    def note(name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: asked.append((name, args, kwargs))

    view, balanced = rc[0, 1], rc.load_balanced_view()
    ar = view.apply_async(int)
    for name in ("queue_status", "purge_results", "shutdown", "clear", "abort"):
        monkeypatch.setattr(rc, name, note(name))
    view.queue_status()
    view.queue_status(4, verbose=True)
    balanced.queue_status()
    view.purge_results([0])
    view.purge_results("all", targets=[0])
    view.shutdown(block=True)
    balanced.shutdown(hub=True)
    view.clear(block=True)
    view.clear(4)
    view.abort(0, targets=1, block=True)
    view.abort()
    assert asked == [
        ("queue_status", ([0, 1], False), {}),
        ("queue_status", (4, True), {}),
        ("queue_status", ("all", False), {}),
        ("purge_results", (), {"jobs": [ar.msg_ids[0]], "targets": ()}),
        ("purge_results", (), {"jobs": "all", "targets": [0]}),
        ("shutdown", ([0, 1],), {"restart": False, "hub": False, "block": True}),
        ("shutdown", ("all",), {"restart": False, "hub": True, "block": None}),
        ("clear", ([0, 1],), {"block": True}),
        ("clear", (4,), {"block": False}),
        ("abort", (ar.msg_ids[0],), {"targets": 1, "block": True}),
        ("abort", (ar.msg_ids,), {"targets": None, "block": None}),
    ]


def test_small_ones(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    view = rc[0]
    view.spin()
    assert view.activate("x") is view
    assert view.results == rc.results
    with view.executor as executor:
        assert executor.submit(pow, 2, 5).result() == 32
    assert list(view.imap(abs, itertools.repeat(-1, 3))) == [1, 1, 1]
    with pytest.raises(TypeError, match="a function is needed, not 3"):
        view.imap(3, [1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="<DirectView 0> cannot be sent: a view belongs to the connection"):
        pickle.dumps(view)
    with pytest.raises(TypeError, match=r"argument 0, of type .*DirectView, cannot be sent"):
        view.apply(id, view)


def test_run(parts: tuple[Client, FakeSession], tmp_path: Path) -> None:
    rc, _ = parts
    script = tmp_path / "script.py"
    text = "# -*- coding: latin-1 -*-\nword = 'h\xe4'\nif word:\n    twice = 2 * engine"
    script.write_bytes(text.encode("latin-1"))
    for view in (rc[:], rc.broadcast_view()):
        ar = view.run(script, label="mine")
        assert [reply.data for reply in ar.get()] == [{}] * 3
        assert ar.label == ["mine"] * 3
        assert view["word"] == ["hä"] * 3
    assert rc[:]["twice"] == [0, 2, 8]
    assert rc[:].run(str(script), targets=4, block=True).engine_id == 4
    script.write_text("def f():\n    1/0\nf()\n")
    with pytest.raises(ZeroDivisionError) as caught:
        rc[0].run(script, block=True)
    assert 'script.py", line 2, in f' in str(caught.value)
    with pytest.raises(FileNotFoundError):
        rc[0].run(tmp_path / "nothing.py")


def test_execute_that_is_not_silent(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    with rc:  # it starts a shell, of which this process has one at most
        ar = rc[0].execute("engine + 41", silent=False)
        assert ar.get().data == {"text/plain": "41"}
        assert rc[0].execute("engine + 41").get().data == {}


def test_a_broadcast_view_is_a_direct_view(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    view = rc.broadcast_view()
    assert isinstance(view, DirectView)
    assert type(view) is BroadcastView
    assert repr(view) == "<BroadcastView [0,1,4]>"
    assert view.is_coalescing is False
    view.is_coalescing = True
    assert view.apply_sync(int) == [0, 0, 0]
    assert len(session.submissions) == 1
    assert view.map_sync(abs, [-1, -2]) == [1, 2]
    view.execute("a = 1", label="mine", block=True)
    assert session.submissions[-1].options.label == "mine"


def test_references(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    view = rc[:]
    view.execute("def f(x): return x * engine\nitems = [engine]", block=True)
    assert view.apply_sync(Reference("f"), Reference("engine")) == [0, 1, 16]
    assert view.map_sync(abs, [Reference("engine")] * 3) == [0, 1, 4]
    assert view.starmap(Reference("f"), [(1,), (1,), (1,)], block=True) == [0, 1, 4]
    assert view.reduce(Reference("max"), [3, 1, 2]) == 3
    assert view.remote(block=True)(Reference("f"))(2) == [0, 2, 8]
    assert rc.load_balanced_view([4]).map_sync(Reference("f"), [1, 2]) == [4, 8]
    with pytest.raises(NameError, match="nothing"):
        rc[0].apply_sync(Reference("nothing"))


@pytest.mark.parametrize("is_balanced", [True, False])
def test_conditions(parts: tuple[Client, FakeSession], is_balanced: bool) -> None:
    rc, _ = parts
    view = rc.load_balanced_view([0]) if is_balanced else rc[0]
    unfit = require("no_such_module")(abs)
    for call in (view.apply_async(unfit, 1), view.map_async(unfit, [1]), view.starmap(unfit, [(1,)])):
        with pytest.raises(UnmetDependency, match="cannot import no_such_module"):
            call.get()
    assert view.map_sync(require("fractions")(abs), [-1, -2]) == [1, 2]


def test_which_serializer(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    view = rc[:]
    function = eval("lambda: data", {"__name__": "__main__", "data": 7})
    try:
        assert view.use_cloudpickle().get() == [None] * 3
        assert in_use() == "cloudpickle"
        assert view.apply_sync(function) == [7] * 3
    finally:
        assert view.use_pickle().get() == [None] * 3
    assert in_use() == ""
    with pytest.raises(NameError, match="data"):
        rc[0].apply_sync(function)
