"""`DirectView` and `BroadcastView`, member by member, on 1, 2 and 4 engines."""

from __future__ import annotations

import array
import builtins
import operator
import os
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest

import enginery as ipp
from tests.system.api.held import ONE_TWO_FOUR, PATIENCE_S, each, from_main

CLUSTERS = ONE_TWO_FOUR

# ---------------------------------------------------------------- execute, run


def test_execute_gives_a_result_in_every_case(rc: ipp.Client, dview: ipp.DirectView) -> None:
    ar = dview.execute("a = 1")
    assert isinstance(ar, ipp.AsyncResult)
    assert [reply.data for reply in ar.get(timeout=PATIENCE_S)] == each(rc, {})
    assert isinstance(dview.execute("b = a + 1", block=True), ipp.AsyncResult)
    assert dview["b"] == each(rc, 2)
    assert rc[0].execute("c = 3", block=True).get().data == {}


def test_a_blocking_execute_raises_and_has_all_text(rc: ipp.Client, dview: ipp.DirectView) -> None:
    with pytest.raises(ZeroDivisionError):
        rc[0].execute("1 / 0", block=True)
    with pytest.raises(ipp.RemoteError, match="SyntaxError"):
        rc[0].execute("a = = 1", block=True)
    ar = dview.execute("import sys; print('out'); print('err', file=sys.stderr)", block=True)
    assert ar.stdout == each(rc, "out\n")
    assert ar.stderr == each(rc, "err\n")


def test_execute_has_targets_a_label_and_keeps_its_source(rc: ipp.Client, dview: ipp.DirectView) -> None:
    last = rc.ids[-1]
    dview.execute("a = 0", block=True)
    ar = dview.execute("a = 1", targets=last, block=True, label="labelled")
    assert dview["a"] == [0] * last + [1]
    assert ar.metadata.label == "labelled"
    assert ar.metadata.execute_input == "a = 1"
    assert dview.execute("a = 2", targets=[0], block=True).get()[0].data == {}


def test_an_execute_that_is_not_silent_has_a_reply(rc: ipp.Client, dview: ipp.DirectView) -> None:
    reply = rc[0].execute("x = 20\nx + 1", silent=False).get(timeout=PATIENCE_S)
    assert repr(reply) == f"<ExecuteReply[{reply.execution_count}]: 21>"
    assert reply.data["text/plain"] == "21"
    assert reply.source == "x = 20\nx + 1"
    assert reply.metadata["engine_id"] == reply["engine_id"] == reply.engine_id == 0
    assert reply.stdout == ""
    assert reply.outputs == []
    following = rc[0].execute("'next'", silent=False).get(timeout=PATIENCE_S)
    assert following.execution_count == reply.execution_count + 1
    ar = dview.execute("7", silent=False)
    assert [found.data["text/plain"] for found in ar.get(timeout=PATIENCE_S)] == each(rc, "7")
    with pytest.raises(AttributeError):
        _ = reply.nothing


def test_run_executes_a_file(rc: ipp.Client, dview: ipp.DirectView, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("# no newline at the end\nif True:\n    where = __name__", encoding="utf-8")
    ar = dview.run(script, block=True, label="from a file")
    assert dview["where"] == each(rc, "__main__")
    assert ar["label"] == each(rc, "from a file")
    replies = rc.broadcast_view().run(str(script)).get(PATIENCE_S)
    assert [reply.data for reply in replies] == each(rc, {})
    dview.run(str(script), targets=0, block=True)
    with pytest.raises(FileNotFoundError):
        dview.run(tmp_path / "absent.py")
    script.write_text("def broken():\n    return 1 / 0\nbroken()")
    with pytest.raises(ZeroDivisionError) as caught:
        rc[0].run(script, block=True)
    assert f'"{script}", line 2' in str(caught.value)


# ---------------------------------------------------------------- names


def test_push(rc: ipp.Client, dview: ipp.DirectView) -> None:
    assert dview.push({"a": 1}).get(timeout=PATIENCE_S) == each(rc, None)
    assert dview.push({}, block=True) == each(rc, None)
    assert rc[0].push({"a": 2}, block=True) is None
    assert dview["a"] == [2, *each(rc, 1)[1:]]
    dview.push({"a": 5}, targets=rc.ids[-1], block=True, track=True, label="pushed")
    assert dview["a"][-1] == 5
    function = from_main("def double(x): return 2 * x * scale", "double")
    dview.push({"double": function, "scale": 10}, block=True)
    assert dview["double(4)"] == each(rc, 80)


def test_pull(rc: ipp.Client, dview: ipp.DirectView) -> None:
    dview.push({"a": 1, "b": [2, 3]}, block=True)
    assert dview.pull("a").get(timeout=PATIENCE_S) == each(rc, 1)
    assert dview.pull(["a", "b"], block=True) == each(rc, [1, [2, 3]])
    assert dview.pull(("b",), block=True) == each(rc, [[2, 3]])
    assert dview.pull({"a"}, block=True) == each(rc, [1])
    assert dview.pull("a", targets=0, block=True) == 1
    assert dview.pull("a", targets=[0], block=True) == [1]
    assert rc[0].pull(["a", "b[0] * 10"], block=True) == [1, 20]
    for names in ("absent", ["a", "absent"]):
        with pytest.raises(NameError, match="absent"):
            rc[0].pull(names, block=True)
    with pytest.raises(ipp.RemoteError):
        dview.pull("absent", block=True)


def test_get_update_and_items(rc: ipp.Client, dview: ipp.DirectView) -> None:
    dview.update({"a": {"k": [1, 2]}})
    dview["b"] = 4
    assert dview.get("a") == dview["a"] == each(rc, {"k": [1, 2]})
    assert dview["a['k'][1] + b"] == each(rc, 6)
    assert rc[0]["b"] == 4
    with pytest.raises(NameError):
        _ = rc[0]["absent"]


def test_items_and_attributes_of_what_is_there_are_set(rc: ipp.Client, dview: ipp.DirectView) -> None:
    dview.execute("class Box: pass\nbox, table = Box(), {}", block=True)
    dview.push({"box.width": 3, "table['k']": 4}, block=True)
    assert dview["box.width"] == each(rc, 3)
    assert dview["table"] == each(rc, {"k": 4})
    with pytest.raises(NameError, match="absent"):
        rc[0].push({"absent.width": 1}, block=True)


@pytest.mark.parametrize("ns", [[("a", 1)], "a", None, {1: 2}, 3])
def test_push_needs_a_dictionary_of_names(dview: ipp.DirectView, ns: Any) -> None:
    with pytest.raises(TypeError, match="push"):
        dview.push(ns)


@pytest.mark.parametrize("names", [3, None, [1], ["a", None], b"a"])
def test_pull_needs_names(dview: ipp.DirectView, names: Any) -> None:
    with pytest.raises(TypeError, match="pull"):
        dview.pull(names)


@pytest.mark.parametrize("code", [3, None, b"a = 1", ["a = 1"]])
def test_execute_needs_text(dview: ipp.DirectView, code: Any) -> None:
    with pytest.raises(TypeError, match="execute needs source text"):
        dview.execute(code)


def test_targets_of_one_call_are_checked(rc: ipp.Client, dview: ipp.DirectView) -> None:
    for use in (
        lambda targets: dview.push({"a": 1}, targets=targets),
        lambda targets: dview.pull("a", targets=targets),
        lambda targets: dview.execute("a = 1", targets=targets),
        lambda targets: dview.scatter("a", [1], targets=targets),
        lambda targets: dview.gather("a", targets=targets),
        lambda targets: dview.clear(targets=targets),
    ):
        with pytest.raises(IndexError, match="there is no engine 9"):
            use([0, 9])
        with pytest.raises(TypeError):
            use("0")


def test_clear(rc: ipp.Client, dview: ipp.DirectView) -> None:
    dview.push({"a": 1}, block=True)
    dview.clear(targets=0, block=True)
    with pytest.raises(NameError):
        rc[0]["a"]
    future = dview.clear()
    assert future.result(PATIENCE_S) is None
    names = dview["sorted(n for n in globals() if not n.startswith('__'))"]
    assert all(set(found) <= {"In", "Out", "get_ipython", "exit", "quit", "open"} for found in names)
    dview.push({"a": 2}, block=True)
    assert dview["a"] == each(rc, 2)


# ---------------------------------------------------------------- scatter, gather


def parts_of(items: list[Any], count: int) -> list[list[Any]]:
    """Contiguous parts whose sizes differ by one at most, the longer ones first."""
    small, longer = divmod(len(items), count)
    found, start = [], 0
    for number in range(count):
        stop = start + small + (number < longer)
        found.append(items[start:stop])
        start = stop
    return found


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5, 16, 17])
@pytest.mark.parametrize("dist", ["b", "r"])
def test_scatter_and_gather_of_every_length(
    rc: ipp.Client, dview: ipp.DirectView, length: int, dist: str
) -> None:
    items = list(range(100, 100 + length))
    assert dview.scatter("part", items, dist=dist, block=True) == each(rc, None)
    found = dview["part"]
    if dist == "b":
        assert found == parts_of(items, len(rc))
    else:
        assert found == [items[start :: len(rc)] for start in range(len(rc))]
    assert dview.gather("part", dist=dist, block=True) == items
    ar = dview.gather("part", dist=dist)
    assert isinstance(ar, ipp.AsyncMapResult)
    assert list(ar) == items


@pytest.mark.parametrize(
    "items",
    ["some text", (1, 2, 3, 4, 5), b"bytes!", range(3, 20, 4), array.array("i", [1, 2, 3, 4, 5])],
    ids=["str", "tuple", "bytes", "range", "array"],
)
def test_scatter_keeps_the_kind_of_a_sequence(rc: ipp.Client, dview: ipp.DirectView, items: Any) -> None:
    dview.scatter("part", items, block=True)
    kind = "list" if isinstance(items, range) else type(items).__name__
    assert dview["type(part).__name__"] == each(rc, kind)
    if not isinstance(items, array.array):
        assert dview.gather("part", block=True) == list(items)


def test_scatter_lists_what_has_no_slices(rc: ipp.Client, dview: ipp.DirectView) -> None:
    for items in (iter([1, 2, 3, 4]), (n for n in (1, 2, 3, 4)), {1: 0, 2: 0, 3: 0, 4: 0}):
        dview.scatter("part", items, block=True)
        assert dview["type(part).__name__"] == each(rc, "list")
        assert dview.gather("part", block=True) == [1, 2, 3, 4]


@pytest.mark.parametrize("shape", [(17,), (5, 3), (2, 2), (0, 4), (1, 3)])
@pytest.mark.parametrize("dist", ["b", "r"])
def test_scatter_and_gather_of_arrays(
    rc: ipp.Client, dview: ipp.DirectView, shape: tuple[int, ...], dist: str
) -> None:
    whole = numpy.arange(float(numpy.prod(shape))).reshape(shape)
    dview.scatter("part", whole, dist=dist, block=True)
    back = dview.gather("part", dist=dist, block=True)
    assert back.dtype == whole.dtype
    assert numpy.array_equal(back, whole)


def test_flatten(rc: ipp.Client, dview: ipp.DirectView) -> None:
    dview.scatter("mine", rc.ids, flatten=True, block=True)
    assert dview["mine"] == rc.ids
    dview.scatter("mine", range(2 * len(rc)), flatten=True, block=True)
    assert dview["mine"] == parts_of(list(range(2 * len(rc))), len(rc))
    dview.scatter("mine", [7], flatten=True, block=True)
    assert dview["mine"] == [7, *each(rc, [])[1:]]
    assert dview.gather("mine", block=True) == [7]


def test_scatter_to_some_engines_and_its_result(rc: ipp.Client, dview: ipp.DirectView) -> None:
    ar = dview.scatter("part", [1, 2, 3], targets=[0], track=True, label="scattered")
    assert isinstance(ar, ipp.AsyncResult)
    assert ar.get(timeout=PATIENCE_S) == [None]
    assert ar["label"] == ["scattered"]
    ar.wait_for_send(PATIENCE_S)
    assert ar.sent is True
    assert rc[0]["part"] == [1, 2, 3]
    assert dview.gather("part", targets=0, block=True) == [1, 2, 3]
    assert rc[0].scatter("part", [4, 5], block=True) == [None]


def test_gather_of_what_is_no_sequence(rc: ipp.Client, dview: ipp.DirectView) -> None:
    dview.push({"n": 3}, block=True)
    assert dview.gather("n", block=True) == each(rc, 3)
    with pytest.raises(NameError, match="absent"):
        rc[0].gather("absent", block=True)


@pytest.mark.parametrize(
    ("use", "error"),
    [
        (lambda view: view.scatter("a", 3), TypeError),
        (lambda view: view.scatter("a", None), TypeError),
        (lambda view: view.scatter(3, [1]), TypeError),
        (lambda view: view.scatter("a", [1], dist="x"), ValueError),
        (lambda view: view.scatter("a", [1], dist=None), ValueError),
        (lambda view: view.scatter("a", [1], colour=2), KeyError),
        (lambda view: view.gather(3), TypeError),
        (lambda view: view.gather("a", dist="cyclic"), ValueError),
    ],
)
def test_scatter_and_gather_of_nonsense(rc: ipp.Client, dview: ipp.DirectView, use: Any, error: Any) -> None:
    with pytest.raises(error):
        use(dview)


# ---------------------------------------------------------------- map


def test_a_direct_map_is_one_contiguous_part_per_engine(rc: ipp.Client, dview: ipp.DirectView) -> None:
    pids = dview.apply_sync(os.getpid)
    ar = dview.map_async(lambda x: (x, __import__("os").getpid()), range(8))
    assert len(ar.msg_ids) == len(rc)
    assert len(ar) == 8
    part = 8 // len(rc)
    assert ar.get(timeout=PATIENCE_S) == [(x, pids[x // part]) for x in range(8)]
    assert ar.get_dict() == {
        engine: [(x, pids[engine]) for x in range(engine * part, (engine + 1) * part)] for engine in rc.ids
    }
    assert len(dview.map_async(abs, [1]).msg_ids) == 1


def test_a_direct_map_has_its_keywords(rc: ipp.Client, dview: ipp.DirectView) -> None:
    ar = dview.map(abs, [-1, -2], block=False, track=True, return_exceptions=True, label="m", progress=False)
    assert ar.get(timeout=PATIENCE_S) == [1, 2]
    with pytest.raises(TypeError, match="chunksize"):
        dview.map(abs, [1], chunksize=1)


def test_reduce_keeps_the_order_on_any_number_of_engines(rc: ipp.Client, dview: ipp.DirectView) -> None:
    words = [f"{n}," for n in range(23)]
    assert dview.reduce(operator.add, words) == "".join(words)
    assert dview.reduce(operator.add, words, ">") == ">" + "".join(words)


# ---------------------------------------------------------------- imports, picklers


def test_sync_imports(rc: ipp.Client, dview: ipp.DirectView, capsys: pytest.CaptureFixture[str]) -> None:
    with dview.sync_imports():
        import colorsys
        import os.path  # noqa: F401
        from fractions import Fraction as Frac  # noqa: F401
    assert "importing colorsys on engine(s)" in capsys.readouterr().out
    assert colorsys is sys.modules["colorsys"]
    assert dview["colorsys.__name__"] == each(rc, "colorsys")
    assert dview["Frac(1, 2) + 1 == Frac(3, 2)"] == each(rc, True)
    assert dview["os.path.basename('a/b')"] == each(rc, "b")
    with dview.importer:
        import keyword  # noqa: F401
    assert dview["keyword.iskeyword('if')"] == each(rc, True)
    capsys.readouterr()
    with dview.sync_imports(quiet=True):
        import stringprep  # noqa: F401
    assert capsys.readouterr().out == ""
    assert dview["stringprep.__name__"] == each(rc, "stringprep")


def test_sync_imports_on_the_engines_alone(rc: ipp.Client, dview: ipp.DirectView, tmp_path: Path) -> None:
    (tmp_path / "of_the_engines_alone.py").write_text("answer = 42\n")
    dview.execute(f"import sys; sys.path.insert(0, {str(tmp_path)!r})", block=True)
    with dview.sync_imports(local=False, quiet=True):
        import of_the_engines_alone as alone
    assert "of_the_engines_alone" not in sys.modules
    assert dview["alone.answer"] == each(rc, 42)
    with pytest.raises(AttributeError, match="on the engines alone"):
        _ = alone.answer
    dview.execute("sys.path.pop(0)", block=True)


def test_imports_that_fail_on_the_engines(rc: ipp.Client, dview: ipp.DirectView) -> None:
    real = builtins.__import__
    with pytest.raises(ImportError), dview.sync_imports(quiet=True):
        import no_such_module_anywhere  # noqa: F401
    assert builtins.__import__ is real


def test_serializers_of_a_view(rc: ipp.Client, dview: ipp.DirectView) -> None:
    reads_data = from_main("data = 'of the client'\ndef f(): return data")
    dview.push({"data": "of the engine"}, block=True)
    try:
        assert dview.apply_sync(reads_data) == each(rc, "of the engine")
        assert dview.use_cloudpickle().get(PATIENCE_S) == each(rc, None)
        assert dview.apply_sync(reads_data) == each(rc, "of the client")
    finally:
        dview.use_pickle().get(PATIENCE_S)
    assert dview.apply_sync(reads_data) == each(rc, "of the engine")


def test_use_dill(rc: ipp.Client, dview: ipp.DirectView) -> None:
    pytest.importorskip("dill")
    reads_data = from_main("data = 'of the client'\ndef f(): return data")
    dview.push({"data": "of the engine"}, block=True)
    try:
        dview.use_dill().get(PATIENCE_S)
        assert dview.apply_sync(reads_data) == each(rc, "of the client")
        with pytest.raises(ZeroDivisionError):
            rc[0].apply_sync(from_main("def f(): return 1 / 0"))
    finally:
        dview.use_pickle().get(PATIENCE_S)


def test_activate_returns_the_view(dview: ipp.DirectView) -> None:
    assert dview.activate() is dview
    assert dview.activate("_suffix") is dview


# ---------------------------------------------------------------- several engines, one call


def test_values_are_in_the_order_of_targets(rc: ipp.Client, dview: ipp.DirectView) -> None:
    pids = dview.apply_sync(os.getpid)
    backwards = rc[::-1]
    assert backwards.apply_sync(os.getpid) == pids[::-1]
    backwards.scatter("n", rc.ids, flatten=True, block=True)
    assert dview["n"] == rc.ids[::-1]
    assert backwards.gather("n", block=True) == rc.ids
    assert rc[[0, 0]].apply_sync(os.getpid) == [pids[0]] * 2


def test_broadcast_is_a_direct_view_with_another_name(rc: ipp.Client, dview: ipp.DirectView) -> None:
    for is_coalescing in (False, True):
        view = rc.broadcast_view(is_coalescing=is_coalescing)
        pids = dview.apply_sync(os.getpid)
        assert view.apply_sync(os.getpid) == pids  # in target order in both cases
        view["a"] = 3
        assert view["a"] == each(rc, 3)
        assert view.map_sync(abs, range(-5, 0)) == [5, 4, 3, 2, 1]
        view.scatter("s", range(9), block=True)
        assert view.gather("s", block=True) == list(range(9))
        ar = view.execute("print('x')", label="labelled", block=True)
        assert ar["label"] == each(rc, "labelled")
        assert ar.stdout == each(rc, "x\n")


def test_errors_of_several_engines(rc: ipp.Client, dview: ipp.DirectView) -> None:
    ar = dview.apply_async(operator.truediv, 1, 0)
    with pytest.raises(ipp.RemoteError) as caught:
        ar.get(timeout=PATIENCE_S)
    error = caught.value
    if len(rc) == 1:
        assert isinstance(error, ZeroDivisionError)
        return
    assert isinstance(error, ipp.CompositeError)
    assert isinstance(error, ExceptionGroup)
    assert [entry[0] for entry in error.elist] == each(rc, "ZeroDivisionError")
    assert [entry[3]["engine_id"] for entry in error.elist] == rc.ids
    with pytest.raises(ZeroDivisionError):
        error.raise_exception(len(rc) - 1)
    with pytest.raises(IndexError):
        error.raise_exception(len(rc))
