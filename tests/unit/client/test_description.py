"""What results tell beside their values: metadata, data, times, sending, text and displays."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import IPython
import IPython.display
import pytest

from enginery.client.client import Client
from enginery.client.results import AsyncResult
from enginery.client.results.async_result import Origin
from enginery.client.results.description import LATE_OUTPUT_S
from enginery.errors import EngineError
from enginery.ids import EngineId, EngineKey, TaskId
from enginery.objects.packing import pack
from enginery.protocol.messages import Output, Status, TaskResult
from tests.unit.client.fake_session import FakeSession, make_client
from tests.unit.client.sayings import clear, display, publish, say, write

KEYS = (
    *("msg_id", "submitted", "started", "completed", "received", "engine_uuid", "engine_id"),
    *("follow", "after", "status", "execute_input", "execute_result", "error", "stdout", "stderr"),
    *("outputs", "data", "label"),
)


@pytest.fixture
def parts() -> tuple[Client, FakeSession]:
    return make_client((0, 1, 2))


def result_of(
    session: FakeSession, engines: list[int], *, is_single: bool = False, **origin: Any
) -> AsyncResult:
    """A result whose tasks the test ends by itself."""
    ids = [EngineId(engine) for engine in engines]
    ar = AsyncResult(session, Origin("f", is_single, **origin), engines=ids, tasks=len(ids))
    ar.on_submitted(TaskId(1))
    return ar


def end(ar: AsyncResult, number: int = 0, **fields: Any) -> None:
    engine = EngineId(number)
    result = TaskResult(TaskId(1 + number), Status.OK, pack(number).inline, engine=engine, **fields)
    result.engine_key = EngineKey(f"key{number}")
    ar.promises[number].on_result(result, ())


# ---------------------------------------------------------------- metadata


def test_all_keys_are_there_before_and_after_the_end(parts: tuple[Client, FakeSession]) -> None:
    _, session = parts
    ar = result_of(session, [0], is_single=True, label="night", after=(TaskId(7),), follow=(TaskId(8),))
    for _ in range(2):
        for key in KEYS:
            assert ar[key] is ar.metadata[key] or ar[key] == getattr(ar.metadata, key) == getattr(ar, key)
        assert (ar.after, ar.follow, ar.label) == (["00000000-7"], ["00000000-8"], "night")
        end(ar, started=2.0, completed=5.0)
    assert (ar.status, ar.engine_uuid, ar.engine_id, ar.error) == ("ok", "key0", 0, None)


def test_results_are_indexed_by_positions_slices_and_keys(parts: tuple[Client, FakeSession]) -> None:
    client, _ = parts
    ar = client[:].apply_async(abs, -3)
    ar.wait()
    assert (ar[0], ar[-1], ar[1:], ar["status"]) == (3, 3, [3, 3], ["ok"] * 3)
    with pytest.raises(KeyError, match="nonsense"):
        _ = ar["nonsense"]
    with pytest.raises(TypeError, match=r"with a position, a slice or a metadata key, not 1\.5"):
        _ = ar[1.5]  # type: ignore[index]
    with pytest.raises(IndexError):
        _ = ar[3]


def test_metadata_does_not_unpickle_values(parts: tuple[Client, FakeSession]) -> None:
    _, session = parts
    ar = result_of(session, [0], is_single=True)
    ar.promises[0].on_result(TaskResult(TaskId(1), Status.OK, b"not a pickle"), ())
    assert ar.metadata.status == "ok"


# ---------------------------------------------------------------- published data


def test_data_has_the_latest_value_of_each_name(parts: tuple[Client, FakeSession]) -> None:
    _, session = parts
    ar = result_of(session, [0, 1])
    assert ar.data == [{}, {}]
    publish(ar.promises[1], "epoch", pack(1).inline)
    publish(ar.promises[1], "loss", pack(0.5).inline)
    publish(ar.promises[1], "epoch", pack(2).inline)
    assert ar.data == ar["data"] == [{}, {"epoch": 2, "loss": 0.5}]
    assert ar.metadata[1].data == {"epoch": 2, "loss": 0.5}
    publish(ar.promises[0], "broken", b"\x80nonsense")
    assert isinstance(ar.data[0]["broken"], Exception)
    single = result_of(session, [0], is_single=True)
    publish(single.promises[0], "x", pack([1, 2]).inline)
    assert single.data == {"x": [1, 2]}


# ---------------------------------------------------------------- times


def test_timedelta(parts: tuple[Client, FakeSession]) -> None:
    _, session = parts
    ar = result_of(session, [0, 1])
    end(ar, 0, started=10.0, completed=12.0)
    with pytest.raises(TimeoutError, match="one of these times is not known yet"):
        ar.timedelta(ar.started, ar.completed)
    end(ar, 1, started=11.0, completed=15.0)
    assert ar.timedelta(ar.started, ar.completed) == 5.0
    assert ar.timedelta(ar.started, ar.completed, start_key=max, end_key=min) == 1.0
    assert ar.timedelta(ar.started[0], ar.completed[0]) == 2.0
    assert ar.serial_time == 6.0
    assert ar.timedelta(ar.submitted, ar.received) == pytest.approx(ar.wall_time, abs=0.01)


# ---------------------------------------------------------------- sending


def test_sent_is_the_controllers_word(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.is_held = True
    ar = client[0, 1].apply_async(abs, -1)
    accepted: set[TaskId] = set()
    session.is_accepted = accepted.issuperset  # type: ignore[method-assign]
    assert ar.sent is False
    assert ar.wait_for_send(0) is False
    assert ar.wait_on_send(timeout=0) is False
    accepted.update(ar.task_ids)
    assert ar.sent is True
    assert ar.wait_on_send() is True


def test_a_map_is_sent_when_its_last_chunk_is(parts: tuple[Client, FakeSession]) -> None:
    client, session = parts
    session.is_accepted = lambda tasks: True  # type: ignore[method-assign]
    view = client.load_balanced_view()
    assert view.map_async(abs, range(10)).sent is True
    long = view.map_async(abs, range(3000))
    assert long.sent is False
    assert long.wait_for_send() is True
    assert not long.done()


# ---------------------------------------------------------------- text


def test_wait_for_output_waits_for_every_piece(parts: tuple[Client, FakeSession]) -> None:
    _, session = parts
    session.is_held = True
    ar = result_of(session, [0], is_single=True)
    assert ar.wait_for_output(0) is False
    write(ar.promises[0], "stdout", "a\n")
    end(ar, outputs=3)
    for text in ("b\n", "c\n"):
        assert ar.wait_for_output(0) is False
        write(ar.promises[0], "stdout", text)
    assert ar.wait_for_output() is True
    assert ar.stdout == "a\nb\nc\n"


def test_text_that_was_lost_is_not_waited_for(
    parts: tuple[Client, FakeSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, session = parts
    ar = result_of(session, [0], is_single=True)
    end(ar, outputs=1)
    limits: list[float | None] = []

    def let_time_pass(predicate: Callable[[], bool], limit_s: float | None = None) -> bool:
        limits.append(limit_s)
        ar.promises[0].received -= limit_s or 0.0
        return predicate()

    monkeypatch.setattr(session, "wait_until", let_time_pass)
    assert ar.wait_for_output() is False
    assert limits == [pytest.approx(LATE_OUTPUT_S, abs=0.5)]


def test_streaming_shows_what_came_before_and_what_comes(
    parts: tuple[Client, FakeSession], capsys: pytest.CaptureFixture[str]
) -> None:
    _, session = parts
    ar = result_of(session, [0, 1])
    write(ar.promises[0], "stdout", "early\n")
    with ar.stream_output():
        assert capsys.readouterr().out == "[stdout:0] early\n"
        write(ar.promises[1], "stdout", "half a ")
        assert capsys.readouterr().out == ""
        write(ar.promises[1], "stdout", "line\nnext\nrest")
        assert capsys.readouterr().out == "[stdout:1]\nhalf a line\nnext\n"
        write(ar.promises[0], "stderr", "oh\n")
        assert capsys.readouterr().err == "[stderr:0] oh\n"
        end(ar, 1, outputs=4)
        write(ar.promises[1], "stdout", " …")
        assert capsys.readouterr().out == ""  # a piece is on its way
        write(ar.promises[1], "stdout", " of it")
        assert capsys.readouterr().out == "[stdout:1] rest … of it\n"
    write(ar.promises[0], "stdout", "late\n")
    assert capsys.readouterr().out == ""
    assert ar.stdout[0] == "early\nlate\n"


def test_streaming_shows_what_comes_after_the_end(
    parts: tuple[Client, FakeSession], capsys: pytest.CaptureFixture[str]
) -> None:
    """Text that came with the result first, then that of threads that are still there."""
    _, session = parts
    ar = result_of(session, [0, 1])
    end(ar, 0, stdout="with the result")
    with ar.stream_output():
        assert capsys.readouterr().out == "[stdout:0] with the result\n"
        say(ar.promises[0], Output(TaskId(1), EngineId(0), "stdout", "of a thread\n"))
        assert capsys.readouterr().out == "[stdout:0] of a thread\n"
    assert ar.stdout[0] == "with the resultof a thread\n"


def test_streaming_a_single_call_shows_its_text_as_it_is(
    parts: tuple[Client, FakeSession], capsys: pytest.CaptureFixture[str]
) -> None:
    _, session = parts
    ar = result_of(session, [0], is_single=True)
    with pytest.raises(KeyboardInterrupt), ar.stream_output():
        write(ar.promises[0], "stdout", "10 %")
        assert capsys.readouterr().out == "10 %"
        raise KeyboardInterrupt
    write(ar.promises[0], "stdout", "20 %")
    assert capsys.readouterr().out == ""


def test_streaming_a_map_shows_chunks_that_are_sent_later(
    parts: tuple[Client, FakeSession], capsys: pytest.CaptureFixture[str]
) -> None:
    client, session = parts
    ar = client.load_balanced_view().map_async(abs, range(2000))
    sent = len(ar.promises)
    with ar.stream_output():
        session.step()
        assert len(ar.promises) > sent
        write(ar.promises[sent], "stdout", "here\n")
        assert capsys.readouterr().out == "[stdout:0] here\n"


def test_streaming_shows_displays_too(
    parts: tuple[Client, FakeSession], capsys: pytest.CaptureFixture[str]
) -> None:
    _, session = parts
    ar = result_of(session, [0, 1])
    write(ar.promises[0], "stdout", "before\n")
    display(ar.promises[0], {"text/plain": "early"})
    with ar.stream_output():
        assert capsys.readouterr().out == "[stdout:0] before\n[output:0]\nearly\n"
        display(ar.promises[1], {"text/plain": "10 %"}, display_id="bar")
        display(ar.promises[1], {"text/plain": "20 %"}, kind="update_display", display_id="bar")
        assert capsys.readouterr().out == "[output:1]\n10 %\n[output:1]\n20 %\n"
        clear(ar.promises[1])
        display(ar.promises[1], {"image/png": b"x", "text/html": "<b>"})
        assert capsys.readouterr().out == "[output:1]\n[image/png, text/html: not to be shown as text]\n"
    display(ar.promises[1], {"text/plain": "late"})
    assert capsys.readouterr().out == ""


def test_streaming_tags_balanced_tasks_with_the_engine_that_writes(
    parts: tuple[Client, FakeSession], capsys: pytest.CaptureFixture[str]
) -> None:
    _, session = parts
    ar = AsyncResult(session, Origin("f", is_single=False), tasks=2)
    ar.on_submitted(TaskId(1))
    with ar.stream_output():
        say(ar.promises[1], Output(TaskId(2), EngineId(2), "stdout", "text\n", 1, 1))
        assert capsys.readouterr().out == "[stdout:2] text\n"


@pytest.mark.parametrize("is_single", [True, False])
def test_streaming_updates_displays_in_their_places_in_a_notebook(
    parts: tuple[Client, FakeSession],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_single: bool,
) -> None:
    shown: list[Any] = []
    formatter = SimpleNamespace(active_types=["text/plain", "text/html"])
    shell = SimpleNamespace(display_formatter=formatter, display_pub="a kernel's")
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    monkeypatch.setattr(IPython.display, "display", lambda *args, **options: shown.append((*args, options)))
    monkeypatch.setattr(IPython.display, "clear_output", lambda wait: shown.append(("clear", wait)))
    _, session = parts
    ar = result_of(session, [0], is_single=is_single)
    with ar.stream_output():
        display(ar.promises[0], {"text/plain": "a"}, {"x": 1})
        display(ar.promises[0], {"text/plain": "b"}, display_id="bar")
        display(ar.promises[0], {"text/plain": "c"}, kind="update_display", display_id="bar")
        clear(ar.promises[0], wait=True)
    own = "1-0-bar"
    expected = [
        ({"text/plain": "a"}, {"metadata": {"x": 1}, "raw": True}),
        ({"text/plain": "b"}, {"metadata": {}, "raw": True, "display_id": own}),
        ({"text/plain": "c"}, {"metadata": {}, "raw": True, "display_id": own, "update": True}),
    ]
    assert shown == [*expected, ("clear", True)] if is_single else expected
    assert capsys.readouterr().out == ("" if is_single else "[output:0]\n" * 2)


def test_a_picture_says_which_engine_it_is_of(
    parts: tuple[Client, FakeSession], capsys: pytest.CaptureFixture[str]
) -> None:
    _, session = parts
    ar = result_of(session, [0], is_single=True)
    with ar.stream_output():
        display(ar.promises[0], {"image/png": b"...", "text/plain": "<Figure>"})
        display(ar.promises[0], {"text/plain": "text"})
    assert capsys.readouterr().out == "[output:0]\n<Figure>\ntext\n"


def test_outputs_are_dictionaries_as_ipyparallel_has_them(parts: tuple[Client, FakeSession]) -> None:
    _, session = parts
    ar = result_of(session, [0, 1])
    display(ar.promises[1], {"text/plain": "a"}, {"x": 1}, display_id="d")
    one = {"data": {"text/plain": "a"}, "metadata": {"x": 1}, "transient": {"display_id": "d"}}
    assert ar.outputs == ar["outputs"] == [[], [one]]
    assert ar.metadata[1].outputs == [one]
    assert result_of(session, [0], is_single=True).outputs == []


def test_wait_for_output_waits_for_displays_and_values(parts: tuple[Client, FakeSession]) -> None:
    """A value that comes last is followed by a text that is counted."""
    _, session = parts
    ar = result_of(session, [0], is_single=True)
    end(ar, outputs=2)
    display(ar.promises[0], {"text/plain": "a"})
    assert ar.wait_for_output(0) is False
    publish(ar.promises[0], "x", pack(1).inline)
    write(ar.promises[0], "stdout", "")
    assert ar.wait_for_output(0) is True
    assert (ar.data, len(ar.outputs), ar.stdout) == ({"x": 1}, 1, "")


def test_a_death_is_told_with_the_last_words(parts: tuple[Client, FakeSession]) -> None:
    _, session = parts
    ar = result_of(session, [0], is_single=True)
    write(ar.promises[0], "stderr", "about to fail\n")
    dead = TaskResult(TaskId(1), Status.ENGINE_DIED, engine=EngineId(0), detail="killed by signal 9")
    ar.promises[0].on_result(dead, ())
    with pytest.raises(EngineError, match=r"killed by signal 9(.|\n)*Its last output:\n *about to fail"):
        ar.get()


# ---------------------------------------------------------------- display


def test_display_outputs_by_type_and_by_engine(
    parts: tuple[Client, FakeSession], capsys: pytest.CaptureFixture[str]
) -> None:
    _, session = parts
    ar = result_of(session, [0, 1])
    end(ar, 0, stdout="one\n", stderr="oh\n")
    end(ar, 1, stdout="two\nlines")
    ar.display_outputs()
    assert capsys.readouterr() == ("[stdout:0] one\n[stdout:1]\ntwo\nlines\n", "[stderr:0] oh\n")
    ar.display_outputs("engine")
    assert capsys.readouterr() == ("[stdout:0] one\n[stdout:1]\ntwo\nlines\n", "[stderr:0] oh\n")
    ar.display_outputs(groupby="order", result_only=True)
    assert capsys.readouterr() == ("", "")
    with pytest.raises(ValueError, match="groupby is one of type, engine, order, not 'colour'"):
        ar.display_outputs("colour")


def test_display_outputs_of_a_single_call(
    parts: tuple[Client, FakeSession], capsys: pytest.CaptureFixture[str]
) -> None:
    _, session = parts
    ar = result_of(session, [0], is_single=True)
    end(ar, stdout="one\ntwo\n")
    ar.display_outputs()
    assert capsys.readouterr().out == "one\ntwo\n"


@pytest.mark.parametrize(
    ("groupby", "text"),
    [
        ("type", "[output:0]\na\nb\n[output:1]\nc\nd\n"),
        ("engine", "[output:0]\na\nb\n[output:1]\nc\nd\n"),
        ("order", "[output:0]\na\n[output:1]\nc\n[output:0]\nb\n[output:1]\nd\n"),
    ],
)
def test_displays_without_a_rich_screen_are_text(
    parts: tuple[Client, FakeSession], capsys: pytest.CaptureFixture[str], groupby: str, text: str
) -> None:
    _, session = parts
    ar = result_of(session, [0, 1])
    for number, names in enumerate(("ab", "cd")):
        end(ar, number)
        for name in names:
            display(ar.promises[number], {"text/plain": name})
    ar.display_outputs(groupby)
    assert capsys.readouterr().out == text


def test_displays_go_to_ipythons_display_where_its_shell_runs(
    parts: tuple[Client, FakeSession], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(IPython, "get_ipython", object)
    monkeypatch.setattr(IPython.display, "display", lambda *args, **kwargs: shown.append((args, kwargs)))
    _, session = parts
    ar = result_of(session, [0, 1], source="1 + 1")
    end(ar, 0)
    reply = {"execution_count": 1, "data": {"text/plain": "a"}, "metadata": {}}
    ar.promises[1].on_result(TaskResult(TaskId(2), Status.OK, pack(reply).inline, engine=EngineId(1)), ())
    display(ar.promises[0], {"text/html": "<b>"}, {"x": 1})
    ar.display_outputs()
    assert capsys.readouterr().out == "[output:0]\n"
    assert shown[0] == (({"text/html": "<b>"},), {"metadata": {"x": 1}, "raw": True})
    assert shown[1:] == [(({"text/plain": "Out[1:1]: a"},), {"metadata": {}, "raw": True})]


def test_repr_is_stable(parts: tuple[Client, FakeSession]) -> None:
    _, session = parts
    ar = result_of(session, [0, 1])
    assert re.fullmatch(r"<AsyncResult: f: 0 of 2 done>", repr(ar))
