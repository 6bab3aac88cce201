"""The magics in a real shell, with real engines: what is written, to the letter."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import enginery as ipp
from enginery.client.results.folding import engine_list
from enginery.frontends import waiting
from tests.ipython_shell import interactive_shell

ENGINES = 3
LONG_S = 50.0
"""Longer than any test may take."""

Run = Callable[[str], str]


def _without_counts(prompt: re.Match[str]) -> str:
    """Engines count their executions apart: ``Out[0:5;1,2:4]:`` is ``Out[0-2:N]:`` here."""
    engines = set()
    for part in re.sub(r":\d+", "", prompt[1]).replace(";", ",").split(","):
        first, _, last = part.partition("-")
        engines.update(range(int(first), int(last or first) + 1))
    return f"Out[{engine_list(engines)}:N]:"


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with interactive_shell(tmp_path_factory.mktemp("shell")) as shell:
        yield shell


@pytest.fixture(scope="module")
def rc(shell: Any) -> Iterator[ipp.Client]:
    with ipp.Cluster(n=ENGINES) as client:
        yield client


@pytest.fixture
def run(
    shell: Any, rc: ipp.Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Run]:
    """Runs a cell; all that it has written, with counts of executions and numbers of cells left out."""
    # Output is held until the end: what comes in which moment depends on how busy the machine is.
    monkeypatch.setattr(waiting, "TICK_S", LONG_S)

    def run(cell: str) -> str:
        capsys.readouterr()
        shell.last = shell.run_cell(cell, store_history=True)
        said = "".join(capsys.readouterr()).replace("\r\n", "\n")
        said = re.sub(r"Out\[(.*:\d+)\]:", _without_counts, said)
        return re.sub(r"<enginery input \d+ of [0-9a-f]{8}>", "<cell>", said)

    rc[:].scatter("rank", range(ENGINES), flatten=True, block=True)
    yield run
    run("%pxconfig --targets all --block --stream --fold --progress-after 2 --signal-on-interrupt 2")
    rc.clear(block=True)


def test_the_first_client_has_brought_the_magics(shell: Any, rc: ipp.Client, run: Run) -> None:
    assert run("%px 6 * 7") == "Out[0-2:N]: 42\n"
    assert run("%px a = rank + 1") == ""
    assert run("%px a") == "Out[0:N]: 1\nOut[1:N]: 2\nOut[2:N]: 3\n"
    assert rc[:]["a"] == [1, 2, 3]


def test_a_cell(run: Run) -> None:
    cell = "import sys\nprint('same')\nprint(rank // 2, file=sys.stderr)\ndisplay(rank % 2)\nrank > 0"
    assert run(f"%%px\n{cell}") == (
        "[stdout:0-2] same\n[output:0,2]\n0\n[output:1]\n1\nOut[0:N]: False\nOut[1,2:N]: True\n"
        "[stderr:0,1] 0\n[stderr:2] 1\n"
    )
    for order in ("", "-r"):
        assert run(f"%%px --no-stream --no-fold {order} -t 0,1\n{cell}") == (
            "[stdout:0] same\n[stdout:1] same\n[output:0]\n0\n[output:1]\n1\n"
            "Out[0:N]: False\nOut[1:N]: True\n[stderr:0] 0\n[stderr:1] 0\n"
        )
    assert run(f"%%px -e -t ::2\n{cell}") == (
        "[stdout:0] same\n[output:0]\n0\nOut[0:N]: False\n"
        "[stdout:2] same\n[output:2]\n0\nOut[2:N]: True\n"
        "[stderr:0] 0\n[stderr:2] 1\n"
    )


def test_what_ipython_has_engines_have(run: Run) -> None:
    assert run("%px !echo $((3 + 4))") == "[stdout:0-2] 7\n"
    assert run("%px import asyncio; await asyncio.sleep(0, 'awaited')") == "Out[0-2:N]: 'awaited'\n"
    assert run("%px --targets 1 %who_ls int") == "Out[1:N]: ['rank']\n"


def test_output_comes_while_the_cell_runs(
    shell: Any, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(waiting, "TICK_S", 0.05)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    lines: list[str] = []

    class Screen:
        """Opens the gate when the first line is there."""

        def write(self, text: str) -> int:
            lines.append(text)
            if "".join(lines) == "[stdout:1] begun\n":
                gate.write_text("go")
            return len(text)

        def flush(self) -> None: ...

    monkeypatch.setattr("sys.stdout", Screen())
    shell.run_cell(f"%%px -t [1]\nprint('begun')\nprint(open({str(gate)!r}).read())")
    assert "".join(lines) == "[stdout:1] begun\n[stdout:1] go\n"


def test_errors(shell: Any, run: Run) -> None:
    trace = (
        "ZeroDivisionError(division by zero)\nTraceback (most recent call last):\n"
        '  File "<cell>", line 2, in <module>\n    1 / (rank - rank)\n    ~~^~~~~~~~~~~~~~~\n'
        "ZeroDivisionError: division by zero\n"
    )
    assert run("%%px\nprint('x')\n1 / (rank - rank)") == (f"[stdout:0-2] x\n3 errors\nengines 0-2: {trace}")
    assert isinstance(shell.last.error_in_exec, ipp.AlreadyDisplayedError)
    assert run("%%px --no-stream\nprint('x')\n1 / (rank - rank)") == (
        f"[stdout:0-2] x\n3 of 3 calls of execute failed\n\nengines 0-2: {trace}"
    )
    assert isinstance(shell.last.error_in_exec, ipp.CompositeError)
    assert run("%%px -t 1\nx = = 1") == (
        "1 error\nengine 1: SyntaxError(invalid syntax (<cell>, line 1))\n"
        '  File "<cell>", line 1\n    x = = 1\n        ^\nSyntaxError: invalid syntax\n'
    )
    assert run("%%px\nif rank == 1: raise KeyError(rank)\nrank").startswith(
        "Out[0:N]: 0\nOut[2:N]: 2\n1 error\nengine 1: KeyError(1)\n"
    )


def test_later(shell: Any, rc: ipp.Client, run: Run) -> None:
    said = run("%%px --noblock -o ar --targets 0,1\nprint('later')\nrank")
    assert re.fullmatch(r"Out\[\d+\]: <AsyncResult: execute: .*>\n", said)
    assert run("%pxresult") == "[stdout:0,1] later\nOut[0:N]: 0\nOut[1:N]: 1\n"
    assert [reply.data["text/plain"] for reply in shell.user_ns["ar"].get()] == ["0", "1"]
    assert run("%pxconfig --noblock --targets 2") == ""
    assert "<AsyncResult: execute: " in run("%px rank")
    assert run("%pxresult") == "Out[2:N]: 2\n"
    assert rc[:].targets == [0, 1, 2]


def test_suffixes(rc: ipp.Client, run: Run) -> None:
    assert rc.activate([2, 0], "_two").block is True
    assert run("%px_two rank") == "Out[2:N]: 2\nOut[0:N]: 0\n"
    rc[1].activate("_one")
    assert run("%%px_one --block\nprint(rank)\nrank") == "1\nOut[1:N]: 1\n"


def test_autopx(shell: Any, run: Run) -> None:
    assert run("%autopx") == "%autopx enabled\n"
    assert run("b = rank * 10\nb") == "Out[0:N]: 0\nOut[1:N]: 10\nOut[2:N]: 20\n"
    assert "b" not in shell.user_ns
    assert run("%pxresult") == "Out[0:N]: 0\nOut[1:N]: 10\nOut[2:N]: 20\n"
    assert run("%autopx") == "%autopx disabled\n"
    assert run("'b' in globals()").endswith("]: False\n")


def test_here_and_there(shell: Any, run: Run) -> None:
    assert re.fullmatch(r"Out\[\d+\]: 49\nOut\[0-2:N\]: 49\n", run("%%px --local\nc = 7\nc * c"))
    assert shell.user_ns["c"] == 7


def test_what_is_kept_is_run_on_engines_that_come_again(rc: ipp.Client, run: Run) -> None:
    assert run("%%px --keep\nkept = 6 * 7\nkept") == "Out[0-2:N]: 42\n"
    assert run("%px --keep --targets 0 own = 1") == ""
    cell, line = rc.setup()
    assert (cell.what.partition("…")[0], cell.engines) == ("execute 'kept = 6 * 7'", "all")
    assert (line.what, line.engines) == ("execute 'own = 1'", [0])
    rc.restart([0, 1], block=True)
    assert rc[:]["kept"] == [42] * ENGINES
    assert rc[0]["own"] == 1
    assert "NameError" in run("%px --targets 1 own")
    rc.forget_setup()


@pytest.mark.parametrize("options", ["", "--no-stream"])
def test_an_interrupt_is_the_engines_and_namespaces_stay(
    shell: Any, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: str
) -> None:
    begun, is_waiting = tmp_path / "begun", threading.Event()
    os.mkfifo(begun)
    wait = waiting.BlockingWait._wait

    def note_and_wait(self: waiting.BlockingWait, *rest: Any) -> None:
        is_waiting.set()
        wait(self, *rest)

    def interrupt_when_all_have_begun() -> None:
        with begun.open("rb", buffering=0) as pipe:
            count = 0
            while count < ENGINES:
                count += len(pipe.read(ENGINES))
            assert is_waiting.wait(LONG_S)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(waiting.BlockingWait, "_wait", note_and_wait)

    thread = threading.Thread(target=interrupt_when_all_have_begun)
    thread.start()
    said = run(
        f"%%px {options}\nimport time\nkept = rank\n"
        f"pipe = open({str(begun)!r}, 'wb', buffering=0)\npipe.write(b'x')\ntime.sleep({LONG_S})"
    )
    thread.join()
    assert "Interrupted: interrupting engines 0-2\n" in said
    assert "engines 0-2: KeyboardInterrupt()\n" in said
    error = shell.last.error_in_exec
    assert isinstance(error, ipp.CompositeError if options else ipp.AlreadyDisplayedError)
    assert run("%px pipe.close(); kept") == "Out[0:N]: 0\nOut[1:N]: 1\nOut[2:N]: 2\n"


def test_a_client_that_is_closed_makes_room_for_the_next(shell: Any, rc: ipp.Client, run: Run) -> None:
    with ipp.Client(rc.connection_file) as other:
        other.activate()
    assert run("%px rank").rstrip().endswith("this client is closed; make a new one with Client()")
    with ipp.Client(rc.connection_file):
        assert run("%px 1") == "Out[0-2:N]: 1\n"
    rc.activate()
    assert run("%px 2") == "Out[0-2:N]: 2\n"
