"""What a task depends on: when that is met, hopeless or invalid; and what is kept of it."""

from __future__ import annotations

import pytest

from enginery.core.dependencies import (
    NOWHERE,
    Condition,
    Dependencies,
    End,
    EndedTasks,
    Outlook,
)
from enginery.core.tasks import Task
from enginery.ids import ClientId, EngineId, TaskId, task_number
from enginery.protocol.messages import Dependency
from tests.unit.core.builders import CLIENT, make_task, on, task_id

LIVES = {1: EngineId(0), 2: EngineId(1)}
GONE = 9


def after(dependency: Dependency, *ends: tuple[int, bool]) -> Outlook:
    condition = Condition(dependency)
    for number, ok in ends:
        condition.on_ended(task_id(number), End(ok, 1))
    return condition.after().outlook


SUCCESS = {"success": True, "failure": False}
FAILURE = {"success": False, "failure": True}
EITHER = {"success": True, "failure": True}
NEITHER = {"success": False, "failure": False}


@pytest.mark.parametrize(
    ("every", "counts", "ends", "outlook"),
    [
        (True, SUCCESS, [], "open"),
        (True, SUCCESS, [(1, True)], "open"),
        (True, SUCCESS, [(1, True), (2, True)], "met"),
        (True, SUCCESS, [(1, False)], "hopeless"),
        (True, SUCCESS, [(1, True), (2, False)], "hopeless"),
        (True, FAILURE, [(1, True)], "hopeless"),
        (True, FAILURE, [(1, False), (2, False)], "met"),
        (True, EITHER, [(1, False)], "open"),
        (True, EITHER, [(1, False), (2, True)], "met"),
        (True, NEITHER, [], "hopeless"),
        (False, SUCCESS, [], "open"),
        (False, SUCCESS, [(1, True)], "met"),
        (False, SUCCESS, [(1, False)], "open"),
        (False, SUCCESS, [(1, False), (2, True)], "met"),
        (False, SUCCESS, [(1, False), (2, False)], "hopeless"),
        (False, FAILURE, [(1, True), (2, True)], "hopeless"),
        (False, FAILURE, [(1, True), (2, False)], "met"),
        (False, EITHER, [(2, False)], "met"),
        (False, NEITHER, [], "hopeless"),
    ],
)
def test_after(every: bool, counts: dict[str, bool], ends: list[tuple[int, bool]], outlook: str) -> None:
    assert after(on(1, 2, all=every, **counts), *ends).value == outlook


@pytest.mark.parametrize("counts", [SUCCESS, NEITHER])
def test_nothing_to_wait_for_is_met(counts: dict[str, bool]) -> None:
    assert after(on(**counts)) is Outlook.MET
    assert after(on(all=False, **counts)) is Outlook.MET
    assert Condition(on(**counts)).follow(LIVES, ()).outlook is Outlook.MET


@pytest.mark.parametrize(
    ("every", "ends", "outlook", "engines"),
    [
        (True, [(1, 1)], "open", ()),
        (True, [(1, 1), (2, 1)], "met", (0,)),
        (True, [(1, 1), (2, 2)], "hopeless", ()),
        (True, [(1, NOWHERE)], "hopeless", ()),
        (True, [(1, GONE)], "hopeless", ()),
        (False, [(1, 1)], "met", (0,)),
        (False, [(1, 2), (2, 1)], "met", (0, 1)),
        (False, [(1, GONE)], "open", ()),
        (False, [(1, GONE), (2, 2)], "met", (1,)),
        (False, [(1, GONE), (2, NOWHERE)], "hopeless", ()),
    ],
)
def test_follow(every: bool, ends: list[tuple[int, int]], outlook: str, engines: tuple[int, ...]) -> None:
    condition = Condition(on(1, 2, all=every))
    for number, life in ends:
        condition.on_ended(task_id(number), End(True, life))
    standing = condition.follow(LIVES, ())
    assert (standing.outlook.value, standing.engines) == (outlook, engines)
    allowed = condition.follow(LIVES, (EngineId(7),)).outlook.value
    assert allowed == ("open" if not every and len(ends) < 2 else "hopeless")


def test_follow_asks_for_success_as_after_does() -> None:
    condition = Condition(on(1, 2, all=False))
    condition.on_ended(task_id(1), End(False, 1))
    condition.on_ended(task_id(2), End(True, 2))
    assert condition.follow(LIVES, ()).engines == (1,)
    condition = Condition(on(1, 2))
    condition.on_ended(task_id(1), End(False, 1))
    assert condition.follow(LIVES, ()).outlook is Outlook.HOPELESS


def detail(dependency: Dependency, *ends: tuple[int, bool, int], follow: bool = False) -> str:
    condition = Condition(dependency)
    for number, ok, life in ends:
        condition.on_ended(task_id(number), End(ok, life))
    return (condition.follow(LIVES, (EngineId(0),)) if follow else condition.after()).detail


def test_details_say_what_cannot_be_met() -> None:
    assert detail(on(1), (1, False, 1)) == "it depends on the success of task 00000001-1, which has failed"
    assert detail(on(1, **FAILURE), (1, True, 1)) == (
        "it depends on the failure of task 00000001-1, which has succeeded"
    )
    assert detail(on(1, 2, all=False), (1, False, 1), (2, False, 1)) == (
        "it depends on the success of one of task 00000001-1 and 1 others; all have failed"
    )
    assert detail(on(1, **NEITHER)) == (
        "it depends on others, but neither their success nor their failure counts"
    )
    assert detail(on(1, 2), (1, True, 1), (2, True, 2), follow=True) == (
        "it is to follow tasks 00000001-1 and 00000001-2, which ended in different places"
    )
    told = "it is to follow task 00000001-1"
    assert detail(on(1), (1, True, 2), follow=True) == f"{told} to engine 1, where it is not allowed"
    assert detail(on(1), (1, True, GONE), follow=True) == f"{told}, and the engine where that ended has left"
    assert detail(on(1), (1, True, NOWHERE), follow=True) == (
        f"{told}, which ended on no engine that is known"
    )


# ---------------------------------------------------------------- the book of all


def begin(book: Dependencies, number: int, unfinished: set[int], **fields: object) -> Task:
    task = make_task(number, **fields)
    unknown = book.on_submitted(task, {task_id(one) for one in unfinished})
    assert unknown == ()
    return task


def outlook(book: Dependencies, task: Task) -> Outlook:
    return book.standing(task, LIVES).outlook


def end(book: Dependencies, number: int, *, ok: bool = True, life: int = 1) -> list[int]:
    book.on_ended(task_id(number), ok, life)
    return [task_number(task.task_id) for task in book.take_changed()]


def test_the_end_of_a_task_concerns_those_who_name_it() -> None:
    book = Dependencies()
    begin(book, 3, {1, 2}, after=on(1))
    begin(book, 4, {1, 2}, after=on(2), follow=on(1))
    begin(book, 5, {1, 2}, after=on(1, 2))
    assert end(book, 1) == [3, 4]
    assert end(book, 2) == [4, 5]
    assert end(book, 2) == []


def test_tasks_that_ended_before_are_known() -> None:
    book = Dependencies()
    book.on_ended(task_id(1), True, 2)
    task = begin(book, 2, set(), after=on(1), follow=on(1))
    assert book.standing(task, LIVES).engines == (1,)


def test_one_condition_serves_all_who_have_it() -> None:
    book = Dependencies()
    tasks = [begin(book, number, {1, 2}, after=on(1, 2)) for number in range(3, 103)]
    assert len(book._conditions) == 1
    assert end(book, 1) == [], "nothing follows before the last one has ended"
    assert len(end(book, 2)) == 100
    assert {outlook(book, task) for task in tasks} == {Outlook.MET}


def test_nothing_is_kept_of_tasks_that_depend_on_nothing_any_more() -> None:
    book = Dependencies()
    ready = begin(book, 3, {1, 2}, after=on(1))
    gone = begin(book, 4, {1, 2}, after=on(1, 2), follow=on(2), wait_timeout_s=5.0)
    follower = begin(book, 5, {1, 2}, follow=on(1))
    assert repr(book) == "<Dependencies of 3 tasks, of which 3 wait>"
    book.stop_waiting(ready)
    book.stop_waiting(follower)
    assert repr(book) == "<Dependencies of 2 tasks, of which 1 wait>"
    end(book, task_number(gone.task_id))
    end(book, task_number(follower.task_id))
    assert (book._claims, book._conditions, book._naming, book.waiting, len(book.deadlines)) == (
        {}, {}, {}, {}, 0,
    )  # fmt: skip
    book.check({})


@pytest.mark.parametrize(
    ("dependency", "why"),
    [
        (on(5), "it depends on itself"),
        (on(1, 5), "it depends on itself"),
        (on(5, 6), "it depends on itself"),
        (on(6), "it depends on task 00000001-6, which its client had not submitted before it"),
        (on(1, 6, all=False), "it depends on task 00000001-6, which its client had not submitted before it"),
    ],
)
def test_a_task_cannot_depend_on_itself_or_on_a_later_one(dependency: Dependency, why: str) -> None:
    for field in ("after", "follow"):
        book = Dependencies()
        task = make_task(5, **{field: dependency})
        book.on_submitted(task, {task_id(1), task_id(5), task_id(6)})
        standing = book.standing(task, LIVES)
        assert (standing.outlook, standing.detail) == (Outlook.INVALID, why)


def test_a_later_number_of_another_client_is_no_later_task() -> None:
    book = Dependencies()
    task = make_task(5, after=on(6, client=ClientId(2)))
    assert book.on_submitted(task, {task_id(6, ClientId(2))}) == ()
    assert outlook(book, task) is Outlook.OPEN


# ---------------------------------------------------------------- the history


def asking(dependency: Dependency, *, number: int = 5) -> tuple[Dependencies, Task, tuple[TaskId, ...]]:
    book = Dependencies()
    task = make_task(number, after=dependency)
    return book, task, book.on_submitted(task, {task_id(1)})


def test_who_is_not_known_is_looked_up() -> None:
    book, task, unknown = asking(on(1, 2, 3))
    assert unknown == (task_id(2), task_id(3))
    answer = {task_id(2): End(True, 1), task_id(3): End(True, NOWHERE)}
    assert book.on_looked_up(answer) == [task]
    assert outlook(book, task) is Outlook.OPEN
    assert end(book, 1) == [5]
    assert outlook(book, task) is Outlook.MET


def test_a_task_waits_for_the_history_even_if_any_is_met() -> None:
    book, task, _ = asking(on(1, 2, all=False))
    assert end(book, 1) == [5]
    assert outlook(book, task) is Outlook.OPEN
    book.on_looked_up({task_id(2): End(False, 1)})
    assert outlook(book, task) is Outlook.MET


def test_who_is_in_no_history_makes_a_task_invalid() -> None:
    book, task, _ = asking(on(2, client=ClientId(0x2A)))
    assert book.on_looked_up({task_id(2, ClientId(0x2A)): None}) == [task]
    standing = book.standing(task, LIVES)
    assert (standing.outlook, standing.detail) == (
        Outlook.INVALID,
        "it depends on task 0000002a-2, which nobody knows",
    )


def test_the_same_is_not_looked_up_twice() -> None:
    book, first, _ = asking(on(2, 3))
    second = make_task(6, after=on(2, 3))
    assert book.on_submitted(second, {task_id(1), first.task_id}) == ()
    assert book.on_looked_up({task_id(2): None, task_id(3): End(True, 1)}) == [first, second]


def test_a_task_that_came_after_the_question_is_known_to_those_who_come_after_it_only() -> None:
    """Else two tasks could wait for each other: the first names the second before that is there."""
    other = ClientId(2)
    book, first, unknown = asking(on(7, client=other))
    second = make_task(6, after=on(7, client=other))
    assert book.on_submitted(second, {first.task_id, task_id(7, other)}) == ()
    assert book.on_looked_up({unknown[0]: None}) == [first]
    assert outlook(book, first) is Outlook.INVALID
    assert outlook(book, second) is Outlook.OPEN


def test_an_answer_that_comes_too_late_changes_nothing() -> None:
    book, task, unknown = asking(on(2))
    end(book, task_number(task.task_id))
    assert book.on_looked_up(dict.fromkeys(unknown)) == []
    book.check({})


# ---------------------------------------------------------------- memory, time


def test_ends_are_remembered_for_as_many_tasks_as_stated() -> None:
    ended = EndedTasks(capacity=10)
    for number in range(1, 101):
        ended.add(task_id(number), number % 2 == 0, number)
        assert len(ended) < 20
        for kept in range(max(number - 9, 1), number + 1):
            assert ended.get(task_id(kept)) == End(kept % 2 == 0, kept)
    assert ended.get(task_id(1)) is None


def test_representation() -> None:
    assert repr(Condition(on(1, 2, client=CLIENT))) == "<Condition of 0 tasks, 2 open>"
