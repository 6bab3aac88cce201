"""What commands print."""

import pytest

from enginery.cli import output


def test_tables_in_a_pipe_keep_whole_words(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table([{"path": "/long" * 60}], {"path": "where"})
    assert capsys.readouterr().out.split() == ["where", "/long" * 60]


def test_words_in_brackets_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table([{"name": "[bold]x"}], {"name": "name"})
    assert capsys.readouterr().out.split() == ["name", "[bold]x"]


def test_names_cannot_forge_lines(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table([{"host": "\x1b]0;pwn\x07\x1b[31mX\nforged"}], {"host": "HOST"})
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 2
    assert "forged" in shown
