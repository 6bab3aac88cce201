"""Flags: one table, for views, calls and decorators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from enginery.client.client import Client
from enginery.client.dependencies import Dependency
from enginery.client.flags import Flags, flag_names, read_flags
from enginery.client.views import DirectView, LoadBalancedView
from enginery.client.views.attributes import FlagAttribute
from enginery.ids import ClientId, format_task_id, make_task_id
from enginery.protocol import messages
from tests.unit.client.fake_session import FakeSession, make_client

TASK = make_task_id(ClientId(7), 1)
TASK_ID = format_task_id(TASK)


@pytest.fixture
def parts() -> tuple[Client, FakeSession]:
    return make_client((0, 1))


class Odd(Exception):
    pass


def test_every_flag_of_the_table_is_an_attribute() -> None:
    for kind in (DirectView, LoadBalancedView):
        names = flag_names(is_balanced=kind is LoadBalancedView)
        assert [name for name in names if not isinstance(getattr(kind, name, None), FlagAttribute)] == []
    assert set(flag_names(is_balanced=True)) - set(flag_names(is_balanced=False)) == {
        "after",
        "follow",
        "timeout",
    }


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("block", 1, True),
        ("label", "x", "x"),
        ("priority", -5, -5),
        ("retries", 2, 2),
        ("retry_on", ValueError, ("builtins.ValueError",)),
        ("retry_on", (KeyError, Odd), ("builtins.KeyError", f"{__name__}.Odd")),
        ("retry_on", (), ()),
        ("retry_on", ["a.Error"], ("a.Error",)),
        ("timeout", 3, 3.0),
        ("timeout", 0, 0.0),
        ("timeout", -1, None),
        ("timeout", float("inf"), None),
        ("time_limit", 2, 2.0),
        ("time_limit", -1, None),
        ("on_interrupt", "keep", "keep"),
        ("after", TASK_ID, messages.Dependency((TASK,))),
        ("follow", Dependency([TASK_ID], failure=True), messages.Dependency((TASK,), True, True, True)),
        ("after", [], None),
    ],
)
def test_reading(name: str, given: Any, expected: Any) -> None:
    assert read_flags({name: given}, is_balanced=True) == {name: expected}
    assert read_flags({name: None}, is_balanced=True) == {}


@pytest.mark.parametrize(
    ("flag", "error", "text"),
    [
        ({"label": 3}, TypeError, r"a label is a text, not 3 \(int\)"),
        ({"label": "x" * 10_001}, ValueError, "a label has at most 10000 characters, not 10001"),
        ({"priority": "high"}, TypeError, "priority must be a whole number, not 'high'"),
        ({"priority": 1 << 31}, ValueError, "priority must be below 2147483648"),
        ({"priority": -(1 << 31) - 1}, ValueError, "priority must be at least -2147483648"),
        ({"retries": 1.5}, TypeError, r"retries must be a whole number, not 1\.5"),
        ({"retries": True}, TypeError, "retries must be a whole number, not True"),
        ({"retries": -1}, ValueError, "retries must not be negative, and is -1"),
        ({"retry_on": 3}, TypeError, "retry_on takes an exception class or several, not 3"),
        ({"retry_on": [int]}, TypeError, "retry_on takes an exception class or several, not <class 'int'>"),
        ({"timeout": "1"}, TypeError, "timeout is a number of seconds or None, not '1'"),
        ({"timeout": float("nan")}, ValueError, "timeout is a number of seconds or None, not nan"),
        ({"after": 3}, TypeError, "dependencies are ids of tasks"),
        ({"follow": "nonsense"}, ValueError, "is not a task id"),
        (
            {"nonsense": 1},
            KeyError,
            "'nonsense' is no flag of a LoadBalancedView; .* are block, track, label",
        ),
        ({"time_limit": "1"}, TypeError, "time_limit is a number of seconds or None, not '1'"),
        ({"on_interrupt": "go on"}, ValueError, "on_interrupt is 'cancel' or 'keep', not 'go on'"),
    ],
)
def test_what_a_flag_cannot_be(
    parts: tuple[Client, FakeSession], flag: dict[str, Any], error: type[Exception], text: str
) -> None:
    rc, session = parts
    view = rc.load_balanced_view()
    asked: list[Callable[[], Any]] = [
        lambda: view.set_flags(**flag),
        lambda: view.temp_flags(**flag).__enter__(),
        lambda: rc.load_balanced_view(**flag),
        lambda: view.apply_with(int, **flag),
        lambda: view.remote(**flag),
    ]
    for ask in asked:
        with pytest.raises(error, match=text):
            ask()
    assert view._flags == Flags()
    assert session.submissions == []


def test_flags_of_balanced_views_only(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    for flag in ("after", "follow", "timeout"):
        with pytest.raises(KeyError, match=f"'{flag}' is a flag of load-balanced views only"):
            rc[:].set_flags(**{flag: None})
        with pytest.raises(AttributeError, match=f"a DirectView has no attribute '{flag}'"):
            setattr(rc[:], flag, None)
        with pytest.raises(TypeError, match=f"DirectView.map has no keyword '{flag}'"):
            rc[:].map(abs, [1], **{flag: None})


def test_set_flags(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    view = rc.load_balanced_view()
    assert (
        view.set_flags(block=True, label="night", after=TASK_ID, timeout=2, retry_on=(Odd,), retries=1)
        is view
    )
    assert (view.block, view.label, view.timeout, view.retries) == (True, "night", 2.0, 1)
    assert view.after == {TASK_ID}
    assert isinstance(view.after, Dependency)
    assert view.retry_on == (f"{__name__}.Odd",)
    assert view.apply(int) == 0
    options = session.submissions[-1].options
    assert options.after == messages.Dependency((TASK,))
    assert (options.follow, options.wait_timeout_s, options.retry_on) == (None, 2.0, (f"{__name__}.Odd",))
    view.set_flags(after=None, timeout=None, block=None, retry_on=None)
    assert (view.after, view.timeout, view.block, view.retry_on) == (None, None, False, None)
    assert (view.label, view.retries) == ("night", 1)
    ar = view.apply(int)
    assert session.submissions[-1].options.wait_timeout_s == -1.0
    assert ar.get() == 0
    view.set_flags(follow=ar)
    assert view.apply_async(int).metadata.follow == ar.msg_ids


def test_temp_flags(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    view = rc[:]
    view.label = "outer"
    with view.temp_flags(block=True, label="inner", retries=3):
        assert view.apply(int) == [0, 0]
        view.priority = 7  # set inside, and none of the block's own
        with view.temp_flags(label="innermost"):
            view.apply(int)
    assert (view.block, view.label, view.retries, view.priority) == (False, "outer", 0, 7)
    assert [call.options.label for call in session.submissions] == ["inner", "innermost"]
    with pytest.raises(ZeroDivisionError), view.temp_flags(block=True):
        raise ZeroDivisionError
    assert view.block is False


def test_targets_and_balanced_are_no_flags_that_change(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    view = rc[0, 1]
    view.set_flags(targets=[0, 1], balanced=False, label="x")
    with view.temp_flags(targets=(0, -1), label="y"):
        assert view.label == "y"
    assert view.label == "x"
    for flags in ({"targets": 0}, {"balanced": True}):
        with pytest.raises(AttributeError, match=r"of <DirectView \[0,1\]> cannot be changed"):
            view.set_flags(**flags, label="z")
        with pytest.raises(AttributeError), view.temp_flags(**flags):
            pass
    assert view.label == "x"
    assert (rc[0].balanced, rc.load_balanced_view().balanced) == (False, True)
    with pytest.raises(AttributeError):
        rc.load_balanced_view().balanced = False


def test_a_view_with_flags_is_its_own(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    one = rc.load_balanced_view(after=[TASK_ID], retry_on=(Odd,))
    assert rc.load_balanced_view(after={TASK_ID}, retry_on=Odd) is one
    assert rc.load_balanced_view(after=Dependency(TASK_ID, failure=True), retry_on=Odd) is not one
    assert rc.load_balanced_view() is not one
    assert rc.load_balanced_view(after=None) is rc.load_balanced_view()


def test_flags_of_one_call(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    direct, balanced = rc[:], rc.load_balanced_view(label="mine")
    direct.execute("a = 1", label="one", retries=2)
    direct.push({"a": 1}, priority=3, track=True)
    direct.pull("a", label="three")
    direct.scatter("a", [1, 2], label="four")
    direct.gather("a", label="five")
    direct.map(abs, [1, 2], label="six", retry_on=())
    direct.apply_with(int, block=False, label="seven")
    balanced.map(abs, [1], after=TASK_ID, timeout=1)
    balanced.map(abs, [1], label="nine")
    labels = [call.options.label for call in session.submissions]
    assert labels == ["one", "", "three", "four", "four", "five", "six", "six", "seven", "mine", "nine"]
    assert session.submissions[0].options.retries == 2
    assert session.submissions[1].options.priority == 3
    assert session.submissions[6].options.retry_on == ()
    assert session.submissions[9].options.after == messages.Dependency((TASK,))
    with pytest.raises(KeyError, match="'nonsense' is no flag"):
        direct.execute("a", nonsense=1)
    assert (direct.label, direct.retries, balanced.after) == ("", 0, None)


def test_calls_with_equal_flags_share_their_options(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    view = rc[0]
    view.apply_with(int, label="x")
    view.apply_with(int, label="x", block=True)
    view.apply_async(int)
    with view.temp_flags(block=True):
        view.apply(int)
    options = [call.options for call in session.submissions]
    assert options[0] is options[1]
    assert options[2] is options[3]
    assert options[0] is not options[2]


def test_the_clients_label_stands_in_for_none(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    plain, named = rc[0], rc.load_balanced_view(label="mine")
    with rc.label("night run"):
        plain.apply_async(int)
        named.apply_async(int)
        plain.map_async(abs, [1])
        named.map_async(abs, [1], label="other")
        lazy = plain.imap(abs, [-1, -2])
        assert list(lazy) == [1, 2]
    ar = plain.apply_async(int)
    labels = [call.options.label for call in session.submissions]
    assert labels == ["night run", "mine", "night run", "other", "night run", "night run", ""]
    assert ar.metadata.label is None
