"""The line of calls behind buffers that are being copied."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from enginery.core.copying import CopyLine


class Item:
    """A call; strings of one letter may be one object."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


class Line:
    """A `CopyLine` whose items are letters: capitals keep their order."""

    def __init__(self, *, to_copy: str = "", ready: str = "") -> None:
        self.line: CopyLine[Item] = CopyLine()
        self.items: dict[str, Item] = {}
        self.add(to_copy, to_copy=True)
        self.add(ready, to_copy=False)

    def add(self, letters: str, *, to_copy: bool) -> None:
        for letter in letters:
            item = self.items[letter] = Item(letter)
            self.line.add(item, in_order=letter.isupper(), to_copy=to_copy)

    def copied(self, letters: str) -> str:
        for letter in letters:
            self.line.on_copied(self.items[letter])
        return "".join(map(repr, self.line.take_ready()))


def test_what_is_copied_goes() -> None:
    line = Line(to_copy="ab")
    assert line.copied("") == ""
    assert line.copied("b") == "b"
    assert line.copied("a") == "a"
    assert len(line.line) == 0


def test_what_is_in_order_waits_for_what_came_before_it() -> None:
    line = Line(to_copy="AB", ready="C")
    assert line.copied("B") == ""
    assert line.copied("A") == "ABC"


def test_what_is_not_in_order_waits_for_nobody_and_holds_nobody_up() -> None:
    line = Line(to_copy="Ab")
    assert line.copied("b") == "b"
    line.add("C", to_copy=False)
    line.add("d", to_copy=False)
    assert line.copied("") == "d"
    assert line.copied("A") == "AC"


def test_the_order_is_to_be_held_as_long_as_something_in_order_is_in_the_line() -> None:
    line = Line(to_copy="a")
    assert not line.line.holds_order
    line.add("B", to_copy=True)
    assert line.line.holds_order
    line.copied("B")
    assert not line.line.holds_order


def test_there_is_news_only_when_something_may_go() -> None:
    """Looking through a line of thousands that wait for one copy would cost as much for each of them."""
    line = Line(to_copy="A")
    assert not line.line.has_news
    line.add("BCD", to_copy=False)
    assert not line.line.has_news
    line.add("e", to_copy=False)
    assert line.line.has_news
    assert line.copied("") == "e"
    assert not line.line.has_news
    line.line.on_copied(line.items["A"])
    assert line.line.has_news
    assert line.copied("") == "ABCD"
    line.line.on_copied(line.items["A"])
    assert not line.line.has_news, "a copy of something that has gone is no news"


def test_a_cleared_line_knows_nobody() -> None:
    line = Line(to_copy="Ab")
    line.line.clear()
    assert line.copied("Ab") == ""
    assert not line.line.holds_order
    assert repr(line.line) == "<CopyLine of 0, 0 to be copied>"


steps = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 9)), max_size=30)


@given(steps)
def test_nothing_is_lost_and_the_order_holds(plan: list[tuple[bool, bool, int]]) -> None:
    line: CopyLine[Item] = CopyLine()
    added: list[tuple[Item, bool]] = []
    waiting: list[Item] = []
    gone: list[Item] = []

    def take() -> None:
        had_news = line.has_news
        ready = line.take_ready()
        assert had_news or not ready
        gone.extend(ready)

    for number, (in_order, to_copy, pick) in enumerate(plan):
        item = Item(str(number))
        added.append((item, in_order))
        line.add(item, in_order=in_order, to_copy=to_copy)
        if to_copy:
            waiting.append(item)
        if waiting and pick < 5:
            line.on_copied(waiting.pop(pick % len(waiting)))
        take()
    for item in waiting:
        line.on_copied(item)
    take()
    assert len(line) == 0
    assert sorted(map(id, gone)) == sorted(id(item) for item, _ in added)
    in_order = [item for item, is_in_order in added if is_in_order]
    assert [item for item in gone if item in in_order] == in_order
