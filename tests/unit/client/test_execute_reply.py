"""ExecuteReply: the value of executed text."""

from __future__ import annotations

from typing import Any

import pytest
from IPython.lib.pretty import pretty

from enginery.client.client import Client
from enginery.client.results import AsyncResult, ExecuteReply
from enginery.client.results.async_result import Origin
from enginery.ids import EngineId, TaskId
from enginery.objects.packing import pack
from enginery.protocol.messages import Status, TaskResult
from tests.unit.client.fake_session import FakeSession, make_client
from tests.unit.client.sayings import write


@pytest.fixture
def parts() -> tuple[Client, FakeSession]:
    return make_client((0, 1))


def executed(
    session: FakeSession, *values: Any, source: str = "1 + 1", is_single: bool = False
) -> AsyncResult:
    engines = [EngineId(number) for number in range(len(values))]
    ar = AsyncResult(session, Origin("execute", is_single, source=source), engines=engines, tasks=len(values))
    ar.on_submitted(TaskId(1))
    for number, value in enumerate(values):
        result = TaskResult(TaskId(1 + number), Status.OK, pack(value).inline, engine=engines[number])
        ar.promises[number].on_result(result, ())
    return ar


def reply(count: int, text: str, **data: str) -> dict[str, Any]:
    return {"execution_count": count, "data": {"text/plain": text, **data}, "metadata": {}}


def test_a_reply_shows_the_value_and_tells_of_its_task(parts: tuple[Client, FakeSession]) -> None:
    _, session = parts
    ar = executed(session, reply(3, "2"), is_single=True)
    found = ar.get()
    assert isinstance(found, ExecuteReply)
    assert repr(found) == "<ExecuteReply[3]: 2>"
    assert (found.execution_count, found.data, found.source) == (3, {"text/plain": "2"}, "1 + 1")
    assert found.metadata is ar.metadata
    assert (found.engine_id, found["engine_id"], found.status, found.outputs) == (0, 0, "ok", [])
    write(ar.promises[0], "stdout", "late\n")
    assert found.stdout == "late\n"
    assert ar.execute_result == reply(3, "2")
    with pytest.raises(AttributeError, match="'ExecuteReply' object has no attribute 'nonsense'"):
        _ = found.nonsense
    with pytest.raises(KeyError):
        _ = found["nonsense"]


def test_several_and_silent_ones(parts: tuple[Client, FakeSession]) -> None:
    _, session = parts
    silent = executed(session, None, is_single=True).get()
    assert (repr(silent), silent.as_text()) == ("<ExecuteReply[0]: >", "")
    ar = executed(session, reply(1, "a"), reply(2, "b" * 40))
    assert [repr(found) for found in ar] == ["<ExecuteReply[1]: a>", f"<ExecuteReply[2]: {'b' * 31}…>"]
    for values in (ar.get(), ar.get(return_exceptions=True), ar.partial().values, [*map(_value, ar.split())]):
        assert [found.execution_count for found in values] == [1, 2]


def _value(part: AsyncResult) -> Any:
    return part.get()


def test_other_calls_keep_their_dictionaries(parts: tuple[Client, FakeSession]) -> None:
    client, _ = parts
    assert client[0].apply_sync(dict, reply(1, "a")) == reply(1, "a")


def test_ipython_shows_the_prompt(parts: tuple[Client, FakeSession]) -> None:
    _, session = parts
    one, two = executed(session, reply(1, "a"), reply(7, "b\nc")).get()
    assert pretty(one) == "Out[0:1]: a"
    assert pretty(two) == "Out[1:7]:\nb\nc"
    nothing = executed(session, {"execution_count": 4, "data": {}, "metadata": {}}, is_single=True).get()
    assert pretty(nothing) == "<ExecuteReply[4]: >"


def test_forms_of_the_value(parts: tuple[Client, FakeSession]) -> None:
    _, session = parts
    content = reply(1, "a", **{"text/html": "<b>a</b>", "image/png": "iVBOR"})
    content["metadata"] = {"image/png": {"width": 3}}
    found = executed(session, content, is_single=True).get()
    assert found._repr_html_() == "<b>a</b>"
    assert found._repr_png_() == ("iVBOR", {"width": 3})
    assert found._repr_svg_() is None
    assert found._repr_mimebundle_() == (
        {"text/html": "<b>a</b>", "image/png": "iVBOR"},
        {"image/png": {"width": 3}},
    )


def test_display_outputs_shows_replies_last(
    parts: tuple[Client, FakeSession], capsys: pytest.CaptureFixture[str]
) -> None:
    _, session = parts
    ar = executed(session, reply(1, "a"), reply(7, "b\nc"))
    write(ar.promises[0], "stdout", "hello\n")
    ar.display_outputs()
    assert capsys.readouterr().out == "[stdout:0] hello\nOut[0:1]: a\nOut[1:7]:\nb\nc\n"
    ar.display_outputs(result_only=True)
    assert capsys.readouterr().out == "Out[0:1]: a\nOut[1:7]:\nb\nc\n"
    ar.display_outputs("engine")
    assert capsys.readouterr().out == "[stdout:0] hello\nOut[0:1]: a\nOut[1:7]:\nb\nc\n"
