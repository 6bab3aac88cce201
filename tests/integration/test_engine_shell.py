"""Texts on engines of a real cluster: IPython's shell where it is asked for, plain Python before."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import enginery as ipp
from enginery.client.state import ClientState
from enginery.objects.displays import unpack_display
from enginery.protocol.messages import Display

PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def rc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ipp.Client]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        patch.delenv("MPLBACKEND", raising=False)
        with ipp.Cluster(n=2) as client:
            yield client


@pytest.fixture
def engine(rc: ipp.Client) -> ipp.DirectView:
    return rc[0]


@pytest.fixture
def displays(monkeypatch: pytest.MonkeyPatch) -> list[Display]:
    """What has come to this client."""
    come: list[Display] = []
    on_record = ClientState.on_record

    def collect(self: ClientState, record: Any, *rest: Any) -> None:
        if isinstance(record, Display):
            come.append(record)
        on_record(self, record, *rest)

    monkeypatch.setattr(ClientState, "on_record", collect)
    return come


def shown(rc: ipp.Client, displays: list[Display], count: int) -> list[tuple[str, Any]]:
    """Kinds and data of the first displays, put together."""

    def ends() -> int:
        return sum(display.is_last for display in displays)

    assert rc.session.wait_until(lambda: ends() >= count, PATIENCE_S), displays
    wholes, content = [], b""
    for display in displays:
        assert display.offset == len(content)
        content += display.content
        if display.is_last:
            wholes.append((display.kind, unpack_display(content).data))
            content = b""
    return wholes


def worth(view: ipp.DirectView, text: str) -> Any:
    reply = view.execute(text, silent=False).get(PATIENCE_S)
    return reply.data.get("text/plain")


def printed(ar: ipp.AsyncResult, text: str) -> bool:
    return ar._session.wait_until(lambda: len(ar.stdout) >= len(text), PATIENCE_S) and ar.stdout == text


HAS_IPYTHON = "'IPython' in __import__('sys').modules"


def test_calls_and_plain_texts_start_no_shell() -> None:
    with ipp.Cluster(n=1) as rc:
        view = rc[0]
        view.execute("import os\na = 5\nprint(a)").get(PATIENCE_S)
        assert view.apply_sync(lambda: a + 1) == 6  # type: ignore[name-defined]  # noqa: F821
        assert view[HAS_IPYTHON] is False
        assert worth(view, "a") == "5"
        assert view[HAS_IPYTHON] is True


def test_one_namespace_for_texts_and_calls(engine: ipp.DirectView) -> None:
    engine["pushed"] = 3
    assert worth(engine, "pushed += 1\npushed") == "4"
    assert engine.apply_sync(lambda: pushed) == 4  # type: ignore[name-defined]  # noqa: F821
    engine.execute("def double(x): return 2 * x").get(PATIENCE_S)
    assert engine.apply_sync(lambda: double(pushed)) == 8  # type: ignore[name-defined]  # noqa: F821
    assert worth(engine, "__name__, globals() is vars(__import__('__main__'))") == "('__main__', True)"


def test_magics_commands_and_await(engine: ipp.DirectView) -> None:
    ar = engine.execute("%env KEPT=5\n!echo from a shell, $KEPT", silent=False)
    ar.get(PATIENCE_S)
    assert printed(ar, "env: KEPT=5\nfrom a shell, 5\r\n"), "commands see a terminal"
    assert worth(engine, "import asyncio\nawait asyncio.sleep(0.001, 'slept')") == "'slept'"
    assert worth(engine, "_") == "'slept'"


def test_run_has_magics_too(engine: ipp.DirectView, tmp_path: Path) -> None:
    path = tmp_path / "cell.py"
    path.write_text("x = !echo here\nraise ValueError(x[0])\n")
    with pytest.raises(ValueError, match="here") as caught:
        engine.run(path).get(PATIENCE_S)
    assert f'File "{path}", line 2' in caught.value.traceback  # type: ignore[attr-defined]
    assert "raise ValueError(x[0])" in caught.value.traceback  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "name", "line"),
    [
        ("a = 1\n1 / 0", "ZeroDivisionError", "1 / 0"),
        ("def f():\n    return missing\nf()", "NameError", "return missing"),
        ("a b", "SyntaxError", "a b"),
        ("await g(1)", "KeyError", "raise KeyError(x)"),
        ("def r(): r()\nr()", "RecursionError", "def r(): r()"),
        ("exit()", "SystemExit", "SystemExit"),
        ("quit", "SystemExit", "SystemExit"),
        ("import sys; sys.exit(3)", "SystemExit", "sys.exit(3)"),
        ("display({'x/y': object()}, raw=True)", "TypeError", "what is displayed as 'x/y' cannot be sent"),
    ],
)
def test_errors_of_texts(engine: ipp.DirectView, text: str, name: str, line: str) -> None:
    pid = engine.apply_sync(os.getpid)
    engine.execute("async def g(x): raise KeyError(x)").get(PATIENCE_S)
    ar = engine.execute(text, silent=False)
    with pytest.raises(ipp.RemoteError) as caught:
        ar.get(PATIENCE_S)
    assert (caught.value.ename, caught.value.engine) == (name, 0)
    assert line in caught.value.traceback
    if name not in ("TypeError", "SystemExit"):  # which rise in what the text calls
        assert "/IPython/" not in caught.value.traceback
        assert "/enginery/" not in caught.value.traceback
    assert (ar.stdout, ar.stderr) == ("", "")
    assert worth(engine, "6 * 7") == "42"
    assert engine.apply_sync(os.getpid) == pid


@pytest.mark.parametrize(
    "text",
    [
        "import sys, io\nsys.stdout = sys.stderr = io.StringIO()\nprint('gone')",
        "import sys\nsys.stdout.close()\nsys.stderr.close()",
        "import sys\nsys.stdout = None",
    ],
)
def test_the_next_task_prints_whatever_one_does_to_stdout(engine: ipp.DirectView, text: str) -> None:
    engine.execute(text, silent=False).get(PATIENCE_S)
    ar = engine.execute("print('here')", silent=False)
    ar.get(PATIENCE_S)
    assert printed(ar, "here\n")


def test_bytes_and_a_line_of_ten_megabytes(engine: ipp.DirectView) -> None:
    ar = engine.execute("import sys\nprint(b'x')\nn = sys.stdout.buffer.write('é\\n'.encode())", silent=False)
    ar.get(PATIENCE_S)
    assert printed(ar, "b'x'\né\n")
    ar = engine.execute("print('y' * 10_000_000)", silent=False)
    ar.get(PATIENCE_S)
    assert printed(ar, "y" * 10_000_000 + "\n")
    assert worth(engine, "'z' * 3") == "'zzz'"


def test_an_interrupt_ends_a_cell_that_awaits(rc: ipp.Client, engine: ipp.DirectView) -> None:
    pid = engine.apply_sync(os.getpid)
    ar = engine.execute("import asyncio\nprint('begun')\nawait asyncio.sleep(60)", silent=False)
    assert printed(ar, "begun\n")
    os.kill(pid, signal.SIGINT)
    with pytest.raises(ipp.RemoteError) as caught:
        ar.get(PATIENCE_S)
    assert caught.value.ename == "KeyboardInterrupt"
    assert worth(engine, "await asyncio.sleep(0, 5)") == "5"


# ---------------------------------------------------------------- displays


def test_displays_of_texts_and_of_calls(
    rc: ipp.Client, engine: ipp.DirectView, displays: list[Display]
) -> None:
    engine.execute("display({'text/html': '<b>'}, raw=True)").get(PATIENCE_S)

    def call() -> None:
        from IPython.display import clear_output, display

        display({"image/png": b"png" * 200_000}, raw=True)
        clear_output()

    rc[1].apply_sync(call)  # the first thing there that has to do with IPython
    assert shown(rc, displays, 3) == [
        ("display_data", {"text/html": "<b>"}),
        ("display_data", {"image/png": b"png" * 200_000}),
        ("clear_output", {}),
    ]
    assert {display.engine for display in displays} == {0, 1}


@pytest.mark.parametrize("first", ["%matplotlib inline\n", ""])
def test_figures(rc: ipp.Client, first: str, displays: list[Display]) -> None:
    text = f"{first}import matplotlib.pyplot as plt\nplt.plot([1, 2, 1])\nNone"
    rc[1].execute(text, silent=bool(first)).get(PATIENCE_S)
    ((kind, data),) = shown(rc, displays, 1)
    assert kind == "display_data"
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert data["text/plain"].startswith("<Figure size")


def test_clearing_leaves_the_shell_at_work(rc: ipp.Client) -> None:
    rc[:].execute("kept = 5\nkept", silent=False).get(PATIENCE_S)
    rc.clear(block=True)
    assert worth(rc[0], "'kept' in globals(), len(Out)") == "(False, 0)"
    assert worth(rc[0], "7") == "7"
    assert worth(rc[0], "_") == "7"


def test_the_end_of_a_cluster_whose_shells_wait() -> None:
    with ipp.Cluster(n=1) as rc:
        rc[0].execute(
            "import asyncio\nleft = asyncio.ensure_future(asyncio.sleep(60))\nawait asyncio.sleep(0)"
        ).get(PATIENCE_S)
        ar = rc[0].execute("await asyncio.sleep(60)", silent=False)
        assert not ar.done()
