"""What one task has said: in order, once, whole, within a bound."""

from __future__ import annotations

from typing import Any

import pytest

from enginery.client.results import said
from enginery.client.results.said import ENTRY_BYTES, Erased, Said, Shown, Text, Updated
from enginery.core.watching import Saying
from enginery.ids import EngineId, TaskId
from enginery.objects.displays import pack_display
from enginery.protocol.messages import RECORDED, Data, Display, Output

TASK, ENGINE = TaskId(1), EngineId(3)


def text(words: str, number: int = 0, *, attempt: int = 1, stream: str = "stdout") -> Output:
    return Output(TASK, ENGINE, stream, words, attempt, number)


def display(
    words: str, number: int, *, kind: str = "display_data", attempt: int = 1, **transient: Any
) -> Display:
    content = pack_display({"text/plain": words}, {}, transient)
    return Display(TASK, ENGINE, kind, content, attempt=attempt, number=number)


def heard(*sayings: Saying) -> Said:
    found = Said()
    for saying in sayings:
        found.note(saying)
    return found


def shown_by(found: Said) -> list[str]:
    return [output["data"]["text/plain"] for output in found.displays()]


# ---------------------------------------------------------------- text and values


def test_text_values_and_displays_are_told_apart() -> None:
    found = heard(
        text("a", 1), Data(TASK, "x", b"1"), text("oh", 2, stream="stderr"), display("d", 3), text("b", 4)
    )
    assert (found.text("stdout"), found.text("stderr"), found.text()) == ("ab", "oh", "aohb")
    assert found.values() == {"x": b"1"}
    assert found.displays() == [{"data": {"text/plain": "d"}, "metadata": {}, "transient": {}}]
    assert found.last == (1, 4)
    assert repr(found) == f"<Said: 4 entries, {4 * ENTRY_BYTES + 17 + len('aohb')} bytes>"


def test_entries_come_once_and_in_order() -> None:
    found = heard(text("a", 1))
    entries, position = found.entries()
    assert entries == [Text("stdout", "a", ENGINE)]
    found.note(display("d", 2))
    found.note(text("b", 3))
    (first, second), position = found.entries(position)
    assert isinstance(first, Shown)
    assert second == Text("stdout", "b", ENGINE)
    assert found.entries(position) == ([], position)


def test_what_comes_twice_is_taken_once() -> None:
    found = heard(text("a", 1), text("b", 2), text("a", 1), text("b", 2), text("c", 3))
    assert found.text("stdout") == "abc"


def test_what_is_missing_is_said() -> None:
    found = heard(text("a", 1), text("d", 4), text("f", 6))
    assert found.text("stdout") == "adf"
    assert found.text("stderr") == (
        "[2 pieces of this task's output did not arrive here]\n"
        "[1 piece of this task's output did not arrive here]\n"
    )


def test_each_attempt_is_numbered_for_itself() -> None:
    found = heard(
        text("a", 1),
        text("b", 2),
        text("uncounted", 0),
        text("A", 1, attempt=2),
        text("late", 3),
        text("B", 2, attempt=2),
    )
    assert found.text("stdout") == "abuncountedAlateB"
    assert found.text("stderr") == ""
    assert found.last == (2, 2)


def test_what_was_kept_takes_the_place_of_what_was_heard() -> None:
    """A client that was away is told all of it once more."""
    found = heard(text("a", 1), display("d", 2), Data(TASK, "x", b"1"))
    found.entries()
    for saying in (text("ab", 1, attempt=RECORDED), display("d", 2, attempt=RECORDED)):
        found.note(saying)
    assert found.text("stdout") == "ab"
    assert shown_by(found) == ["d"]
    assert found.text("stderr") == ""
    assert found.values() == {"x": b"1"}


def test_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(said, "KEPT_BYTES", 3 * (ENTRY_BYTES + 20))
    found = heard(*(text(letter * 20, number) for number, letter in enumerate("abcde", 1)))
    assert found.text("stdout") == (
        "[the first 40 characters of this text are no longer kept]\n" + "c" * 20 + "d" * 20 + "e" * 20
    )
    _, position = found.entries()
    assert position == 5, "who has seen some of it goes on behind that"
    for number, letter in enumerate("fgh", 6):
        found.note(display(letter, number))
    assert found.text("stdout").startswith("[the first 100 characters")
    assert shown_by(found) == ["f", "g", "h"]
    found.note(text("x" * 90, 9, stream="stderr"))
    assert shown_by(found) == ["[the first 2 displays of this task are no longer kept]", "h"]


def test_much_text_costs_no_more_at_its_end_than_at_its_beginning() -> None:
    """100,000 lines, looked at after each piece as a stream does: every entry is handed out once."""
    found, position, lines = Said(), 0, 0
    for number in range(1, 100_001):
        found.note(text(f"{number}\n", number))
        entries, position = found.entries(position)
        lines += len(entries)
    assert lines == 100_000
    assert found.text("stdout").count("\n") == 100_000


# ---------------------------------------------------------------- displays


def test_updates_change_all_displays_of_their_id() -> None:
    found = heard(display("a", 1, display_id="x"), display("b", 2), display("c", 3, display_id="x"))
    _, position = found.entries()
    found.note(display("A", 4, kind="update_display", display_id="x"))
    assert shown_by(found) == ["A", "b", "A"]
    entries, _ = found.entries(position)
    assert [type(entry) for entry in entries] == [Updated, Updated]


def test_an_update_of_what_another_task_displays_is_a_display() -> None:
    assert shown_by(heard(display("a", 1, kind="update_display", display_id="x"))) == ["a"]


def test_displays_are_erased_at_once_or_by_the_next_one() -> None:
    found = heard(display("a", 1), display("", 2, kind="clear_output", wait=False))
    assert shown_by(found) == []
    found.note(display("b", 3))
    found.note(display("", 4, kind="clear_output", wait=True))
    assert shown_by(found) == ["b"]
    found.note(text("t", 5))
    assert shown_by(found) == ["b"]
    found.note(display("c", 6))
    found.note(display("d", 7))
    assert shown_by(found) == ["c", "d"]
    entries, _ = found.entries()
    assert Erased(ENGINE, True) in entries


def test_an_animation_takes_no_more_memory_than_its_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(said, "KEPT_BYTES", 100_000)
    found = Said()
    for number in range(1, 2001, 2):
        found.note(display("", number, kind="clear_output", wait=True))
        found.note(display("x" * 10_000, number + 1))
    assert shown_by(found) == ["x" * 10_000]
    entries, _ = found.entries()
    assert sum(len(entry.bundle.data) for entry in entries if isinstance(entry, Shown)) == 1
    assert len(entries) * ENTRY_BYTES <= 100_000


def test_a_display_in_pieces_is_whole_or_not_there() -> None:
    whole = display("x" * 100, 0).content
    cut = [
        Display(
            TASK,
            ENGINE,
            "display_data",
            whole[start : start + 40],
            start,
            start + 40 >= len(whole),
            1,
            number,
        )
        for number, start in enumerate(range(0, len(whole), 40), 1)
    ]
    assert shown_by(heard(*cut)) == ["x" * 100]
    assert shown_by(heard(*cut[:-1])) == []
    without = heard(cut[0], *cut[2:], display("next", len(cut) + 1))
    assert shown_by(without) == ["next"]
    assert without.text("stderr") == "[1 piece of this task's output did not arrive here]\n"
    headless = [Display(TASK, ENGINE, "display_data", whole[40:], 40, number=1), display("next", 2)]
    assert shown_by(heard(*headless)) == ["next"]


def test_a_display_that_cannot_be_read_is_said() -> None:
    found = heard(Display(TASK, ENGINE, "display_data", b"\xc1", number=1))
    (sentence,) = shown_by(found)
    assert sentence.startswith("[a display of this task cannot be read: this is no display")
