"""Waiting for a cell: output and failures while it runs, the bar, Ctrl-C."""

from __future__ import annotations

import re
import signal

import pytest

from enginery.errors import TaskAborted
from enginery.ids import EngineId
from enginery.objects.displays import pack_display
from enginery.protocol.messages import Display, InterruptEngines, Output, SignalEngines
from tests.unit.client.fake_session import Waiting
from tests.unit.frontends.site import Site


@pytest.fixture(autouse=True)
def active(site: Site) -> None:
    site.rc.activate()
    site.session.is_held = True


def interrupt() -> None:
    raise KeyboardInterrupt


class Running:
    """Tasks that engines have begun, in the order of engines."""

    def __init__(self, site: Site, count: int) -> None:
        self._site = site
        self._count = count
        self._entries: list[Waiting] = []
        self._said = [0] * count

    def begin(self) -> None:
        self._entries = [self._site.session.waiting.pop(0) for _ in range(self._count)]

    def write(self, *engines: int, text: str = "") -> None:
        for number in engines:
            entry = self._entries[number]
            self._said[number] += 1
            entry.promise.on_said(Output(entry.task, entry.engine, "stdout", text, number=self._said[number]))
            entry.promise.on_heard()

    def show(self, *engines: int, text: str = "", display_id: str = "", kind: str = "display_data") -> None:
        for number in engines:
            entry = self._entries[number]
            self._said[number] += 1
            content = pack_display({"text/plain": text}, {}, {"display_id": display_id} if display_id else {})
            entry.promise.on_said(
                Display(entry.task, entry.engine, kind, content, 0, True, number=self._said[number])
            )
            entry.promise.on_heard()

    def end(self, *engines: int) -> None:
        for number in engines:
            entry = self._entries[number]
            self._site.session.verdicts[self._verdict(entry)].outputs = self._said[number]
            self._site.session.run(entry)

    @staticmethod
    def _verdict(entry: Waiting) -> int:
        return int(entry.task) & 0xFFFFFFFF


# ---------------------------------------------------------------- while it runs


def test_output_comes_while_it_runs_and_is_folded(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    running, seen = Running(site, 3), []

    def look() -> None:
        seen.append(capsys.readouterr().out)

    site.expect(0, 1, 2, value="5")
    site.session.later.extend(
        [
            running.begin,
            lambda: running.write(0, 1, 2, text="one\n"),
            look,
            lambda: running.write(1, text="two\npart"),
            lambda: running.show(0, 2, text="<figure>"),
            look,
            lambda: running.end(0, 1, 2),
        ]
    )
    said = site.run("%px f()")
    assert "".join(seen) + said == (
        "[stdout:0-2] one\n[stdout:1] two\n[output:0,2]\n<figure>\n[stdout:1] part\nOut[0-2:1]: 5\n"
    )
    assert seen[0] == "[stdout:0-2] one\n"


def test_a_failure_is_shown_while_others_run(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    running, seen = Running(site, 3), []
    site.expect(0, 1, error=ValueError("no"))
    site.expect(2)
    site.session.later.extend(
        [
            running.begin,
            lambda: running.end(0, 1),
            lambda: None,
            lambda: seen.append(capsys.readouterr().err),
            lambda: running.end(2),
        ]
    )
    assert site.run("%px f()") == "2 errors\n"
    assert seen == ["engines 0, 1: ValueError(no)\nValueError: no\n"]
    assert site.err == ""


def test_what_is_updated_is_not_folded(site: Site) -> None:
    running = Running(site, 3)
    site.expect(0, 1, 2)
    site.session.later.extend(
        [
            running.begin,
            lambda: running.write(0, 1, text="first\n"),
            lambda: running.show(0, 1, text="10 %", display_id="bar"),
            lambda: running.show(1, text="20 %", display_id="bar", kind="update_display"),
            lambda: running.end(0, 1, 2),
        ]
    )
    assert site.run("%px f()") == "[stdout:0,1] first\n[output:0]\n10 %\n[output:1]\n10 %\n20 %\n"


@pytest.mark.parametrize("after", ["0", "0.0"])
def test_a_bar_counts_engines(site: Site, after: str) -> None:
    running = Running(site, 3)
    site.expect(0, 1, 2)
    site.session.later.extend(
        [running.begin, lambda: running.write(0, text="x\n"), lambda: running.end(0, 1, 2)]
    )
    assert site.run(f"%%px --progress-after {after}\nf()") == "[stdout:0] x\n"
    assert re.search(r"%px: 100%\S* 3/3 ", site.err.replace("|██████████|", ""))


def test_no_bar(site: Site) -> None:
    site.session.is_held = False
    site.run("%pxconfig --progress-after=-1")
    site.expect(0, 1, 2)
    site.run("%px f()")
    assert site.err == ""


# ---------------------------------------------------------------- Ctrl-C


def test_what_runs_is_interrupted_and_what_waits_is_taken_back(site: Site) -> None:
    running = Running(site, 2)
    site.expect(0, value="0")
    site.expect(1, error=ValueError("interrupted"))
    site.session.later.extend(
        [
            running.begin,
            lambda: running.end(0),
            interrupt,
            lambda: None,
            lambda: running.end(1),
        ]
    )
    out = site.run("%px f()")
    assert site.session.asked == [InterruptEngines(1, [EngineId(1)])]
    assert out == "Out[0:1]: 0\n2 errors\n"
    assert "Interrupted: interrupting engine 1\n" in site.err
    assert [type(error) for error in site.result.error_in_exec.original_error.exceptions][1] is TaskAborted


def test_another_signal(site: Site) -> None:
    running = Running(site, 3)
    site.expect(0, 1, 2)
    site.session.later.extend(
        [
            running.begin,
            lambda: running.write(1, text="before\n"),
            interrupt,
            lambda: None,
            lambda: running.write(1, text="after\n"),
            lambda: running.end(0, 1, 2),
        ]
    )
    out = site.run("%%px --signal-on-interrupt USR1\nf()")
    assert out == "[stdout:1] before\n[stdout:1] after\n"
    assert site.session.asked == [SignalEngines(1, [EngineId(0), EngineId(1), EngineId(2)], signal.SIGUSR1)]
    assert site.err == "Interrupted: sending SIGUSR1 to engines 0-2\n"
    assert site.result.error_in_exec is None


def test_a_second_interrupt_waits_no_longer(site: Site) -> None:
    running = Running(site, 3)
    site.expect(0, 1, 2, value="1")
    site.session.later.extend([running.begin, interrupt, lambda: None, interrupt])
    site.run("%px f()")
    assert isinstance(site.result.error_in_exec, KeyboardInterrupt)
    assert len(site.session.asked) == 1
    running.end(0, 1, 2)
    assert site.run("%pxresult") == "Out[0-2:1]: 1\n"


def test_no_signal_at_all(site: Site) -> None:
    site.run("%pxconfig --signal-on-interrupt 0")
    site.session.later.append(interrupt)
    site.expect(0, 1, 2)
    site.run("%px f()")
    error = site.result.error_in_exec
    assert isinstance(error, KeyboardInterrupt)
    assert str(error) == "no longer waiting; what runs on the engines goes on"
    assert site.session.asked == []
    assert site.session.aborted == []
