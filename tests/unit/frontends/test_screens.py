"""A bar in a terminal: its line, and lines of tasks below it where there is a terminal."""

from __future__ import annotations

import io
import os
import sys
from types import SimpleNamespace
from weakref import WeakSet

import pytest

from enginery.client.results.bars import ProgressBar
from enginery.client.snapshots import Standing, TaskLine
from enginery.frontends.faces import screens
from enginery.frontends.faces.screens import TerminalScreen


class Terminal(io.StringIO):
    """Keeps what is on its screen, as far as tqdm's ways to move the cursor go."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        rows, row = [""], 0
        text = self.getvalue()
        while text:
            if text.startswith("\x1b[A"):
                row, text = row - 1, text[3:]
            elif text[0] == "\n":
                row, text = row + 1, text[1:]
                rows += [""] * (row + 1 - len(rows))
            elif text[0] == "\r":
                end = min(
                    (found for mark in "\r\n\x1b" if (found := text.find(mark, 1)) > 0), default=len(text)
                )
                written = text[1:end]
                rows[row] = written + rows[row][len(written) :]
                text = text[end:]
            else:
                raise AssertionError(f"not at the beginning of a line: {text!r}")
        return [line.rstrip() for line in rows if line.strip()]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr(screens, "sys", SimpleNamespace(stderr=terminal))  # pytest sets the real one again
    monkeypatch.setattr(screens.shutil, "get_terminal_size", lambda: os.terminal_size((40, 24)))
    # tqdm leaves room for all bars of a process: those that another test still holds are not on this screen.
    monkeypatch.setattr(screens._terminal_bar(), "_instances", WeakSet(), raising=False)
    return terminal


def lines(*texts: str) -> tuple[TaskLine, ...]:
    return tuple(TaskLine(f"engine {number}", 0.5, text) for number, text in enumerate(texts))


def test_tasks_have_lines_of_their_own_that_go_with_them(terminal: Terminal) -> None:
    screen = TerminalScreen()
    screen.draw(Standing(0, 4, name="f", lines=lines("{a}", "b\x1b[2J", "x" * 100), more_lines=2))
    bar, *below = terminal.screen()
    assert bar.startswith("f:   0%|")
    assert bar.endswith("| 0/4 tasks [0:00]")
    assert below == [
        "  engine 0: 50 % {a}",
        "  engine 1: 50 % b [2J",
        ("  engine 2: 50 % " + "x" * 100)[:39],
        "  and 2 more",
    ]
    assert repr(screen) == "<TerminalScreen with 4 lines>"
    screen.draw(Standing(3, 4, name="f", failed=1, elapsed_s=3.0, lines=lines("c")))
    assert terminal.screen()[1:] == ["  engine 0: 50 % c"]
    screen.close()
    (bar,) = terminal.screen()
    assert bar.endswith("| 3/4 tasks [0:03<0:01, 1 failed]")


def test_a_bar_makes_room_for_what_is_written(terminal: Terminal) -> None:
    standing = Standing(1, 2, name="f", lines=lines("a"))
    bar = ProgressBar(lambda: standing, widget=False)
    with bar.hidden():
        assert terminal.screen() == []
    bar.close()
    assert [line[:8] for line in terminal.screen()] == ["f:  50%|"]


def test_without_a_total_there_is_no_bar(terminal: Terminal) -> None:
    screen = TerminalScreen()
    screen.draw(Standing(5, None, name="f {x}", unit="items", elapsed_s=3.0))
    assert terminal.screen() == ["f {x}: 5 items [0:03]"]
    screen.draw(Standing(6, 6, name="f {x}", unit="items", elapsed_s=3.0))
    screen.close()
    assert terminal.screen()[0].endswith("6/6 items [0:03]")


def test_where_there_is_no_terminal_there_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = TerminalScreen()
    screen.draw(Standing(1, 2, name="f", lines=lines("a")))
    screen.close()
    err = capsys.readouterr().err
    assert "engine 0" not in err
    assert "1/2 tasks [0:00<0:00]" in err
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    bar = ProgressBar(lambda: Standing(1, 2), widget=False)
    bar.move()
    bar.close()
    monkeypatch.setattr(sys, "stderr", None)
    with ProgressBar(lambda: Standing(1, 2), widget=False) as nowhere:
        nowhere.move()


class Broken(Terminal):
    """A terminal that goes away."""

    is_gone = False

    def write(self, text: str) -> int:
        if self.is_gone:
            raise BrokenPipeError
        return super().write(text)


@pytest.mark.parametrize("gone", ["later", "from the start"])
def test_a_bar_whose_terminal_is_gone_takes_no_line_of_the_next_one(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    broken = Broken()
    broken.is_gone = gone == "from the start"
    standing = Standing(1, 2, name="f", lines=lines("a"))
    with monkeypatch.context() as patch:
        patch.setattr(screens, "sys", SimpleNamespace(stderr=broken))
        first = ProgressBar(lambda: standing, widget=False)
        broken.is_gone = True
        with first.hidden():
            pass
    second = ProgressBar(lambda: standing, widget=False)
    second.close()
    assert [line[:8] for line in terminal.screen()] == ["f:  50%|"]
    first.close()
