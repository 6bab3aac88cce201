"""`ar.explain()`: what is shown of reasons and times."""

from __future__ import annotations

from enginery.client.results.explanation import Explanation
from enginery.core.explain import Phases
from enginery.ids import ClientId, EngineId, make_task_id
from enginery.protocol.messages import Reason

TASK = make_task_id(ClientId(1), 7)
SHORT = Phases(0.5, 0.25, 0.0, 1.0, 0.0, 0.125)
LONG = Phases(0.5, 0.25, 0.0, 3.0, 0.0, 0.125)


def test_one_task_that_waits() -> None:
    shown = Explanation([Reason(1, TASK, "ready", "no engine")], [], unfinished=1, done=0)
    assert str(shown) == "1 of 1 task has not ended:\n  ready: no engine (task 00000001-7)"


def test_several_with_one_reason() -> None:
    shown = Explanation([Reason(3, TASK, "sent", "busy", EngineId(2))], [], unfinished=3, done=0)
    assert str(shown).splitlines()[1] == "  sent: busy (task 00000001-7 and 2 more)"
    assert shown.to_dict()["reasons"] == [
        {"tasks": 3, "first": "00000001-7", "state": "sent", "why": "busy", "engine": 2}
    ]


def test_times_of_one() -> None:
    lines = str(Explanation([], [SHORT], unfinished=0, done=1)).splitlines()
    assert lines[0] == "1 of 1 task has ended:"
    assert lines[1].split() == ["queue", "transfer", "unpickle", "run", "pickle", "return"]
    assert lines[2].split() == ["seconds", "0.500", "0.250", "0.000", "1.000", "0.000", "0.125"]


def test_times_of_several() -> None:
    shown = Explanation([], [SHORT, LONG], unfinished=0, done=2)
    lines = str(shown).splitlines()
    assert lines[2].split()[:6] == ["mean,", "s", "0.500", "0.250", "0.000", "2.000"]
    assert lines[3].split()[:6] == ["longest,", "s", "0.500", "0.250", "0.000", "3.000"]
    assert shown.to_dict()["longest_s"]["run"] == 3.0


def test_results_that_are_under_way() -> None:
    shown = str(Explanation([], [], unfinished=1, done=0))
    assert shown.splitlines()[1] == "  the controller has none of them: their results are on their way here"


def test_a_controller_that_is_silent() -> None:
    trouble = "the controller cannot be asked: it is gone"
    assert str(Explanation([], [], unfinished=1, done=0, trouble=trouble)).splitlines()[1] == f"  {trouble}"


def test_ended_without_having_run() -> None:
    assert str(Explanation([], [], unfinished=0, done=1)) == "1 of 1 task has ended"
