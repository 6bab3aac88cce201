"""Claims and results of one engine."""

from __future__ import annotations

from enginery.core.workload import BEGUN_LIMIT, CLAIMS_KEPT, Attempt, Workload, result_size
from enginery.ids import BlobId
from enginery.protocol.messages import EngineResult, Status
from tests.unit.core.builders import result, task_id


def attempt(number: int, count: int = 1) -> Attempt:
    return task_id(number), count


def filled(*numbers: int) -> Workload[str]:
    workload: Workload[str] = Workload()
    for number in numbers:
        assert workload.on_task(attempt(number), f"work {number}")
    return workload


def finish(workload: Workload[str], number: int, **fields: object) -> None:
    workload.on_finished(result(number, **fields))  # type: ignore[arg-type]
    workload.check()


def taken(workload: Workload[str]) -> list[tuple[int, int]]:
    groups = [(first, len(results)) for first, results, _ in workload.take_results()]
    workload.check()
    return groups


def test_tasks_start_in_the_order_of_arrival() -> None:
    workload = filled(2, 1)
    assert workload.start_next() == (attempt(2), "work 2")
    assert workload.start_next() == (attempt(1), "work 1")
    assert workload.start_next() is None
    assert len(workload) == 0


def test_a_task_that_is_here_is_not_taken_twice() -> None:
    workload = filled(1)
    assert not workload.on_task(attempt(1), "again")
    workload.start_next()
    assert not workload.on_task(attempt(1), "again")
    finish(workload, 1)
    assert not workload.on_task(attempt(1), "again")
    assert workload.on_task(attempt(1, 2), "another attempt")


def test_the_first_claim_is_final() -> None:
    workload = filled(1, 2)
    workload.start_next()
    assert workload.on_take_back([attempt(1), attempt(2)]) == ([attempt(2)], [attempt(1)])
    assert workload.start_next() is None
    workload.check()


def test_a_take_back_may_come_before_its_task() -> None:
    workload = filled()
    assert workload.on_take_back([attempt(1)]) == ([attempt(1)], [])
    assert not workload.on_task(attempt(1), "late")
    assert workload.start_next() is None


def test_what_was_given_back_stays_so_if_the_task_is_sent_again() -> None:
    # The answer is still on its way when a new hello has the controller send again what is not held.
    workload = filled(1)
    workload.on_take_back([attempt(1)])
    assert workload.held() == []
    for _ in range(2):
        assert not workload.on_task(attempt(1), "again")
    assert workload.on_take_back([attempt(1)]) == ([attempt(1)], [])


def test_claims_are_bounded() -> None:
    workload = filled()
    workload.on_take_back([attempt(number) for number in range(CLAIMS_KEPT + 5)])
    workload.check()
    assert workload.on_task(attempt(4), "forgotten")
    assert not workload.on_task(attempt(5), "remembered")


def test_results_are_numbered_and_kept_until_they_are_stored() -> None:
    workload = filled(1, 2, 3)
    for number in (1, 2, 3):
        workload.start_next()
        finish(workload, number)
    assert taken(workload) == [(0, 3)]
    assert taken(workload) == []
    assert [safe.task for safe in workload.on_stored(2)] == [task_id(1), task_id(2)]
    assert workload.first_result == 2
    assert workload.held() == [attempt(3)]


def test_after_a_welcome_everything_that_is_not_stored_is_sent_again() -> None:
    workload = filled(1, 2, 3)
    for number in (1, 2):
        workload.start_next()
        finish(workload, number)
    taken(workload)
    workload.on_welcome(1)
    workload.start_next()
    finish(workload, 3)
    assert taken(workload) == [(1, 2)]


def test_stored_before_sent_in_this_epoch() -> None:
    workload = filled(1, 2)
    for number in (1, 2):
        workload.start_next()
        finish(workload, number)
    taken(workload)
    workload.on_welcome(0)
    workload.on_stored(1)
    assert taken(workload) == [(1, 1)]


def test_results_with_blobs_and_without_do_not_share_a_record() -> None:
    workload = filled(1, 2, 3)
    for number in (1, 2, 3):
        workload.start_next()
        answer = result(number)
        answer.blobs = (BlobId(b"b" * 16),) if number == 2 else ()
        workload.on_finished(answer)
    assert taken(workload) == [(0, 1), (1, 1), (2, 1)]


def test_records_are_bounded() -> None:
    workload = filled(*range(2500))
    for number in range(2500):
        workload.start_next()
        workload.on_finished(result(number))
    assert [count for _, count in taken(workload)] == [1000, 1000, 500]


def test_what_is_held_is_for_the_hello() -> None:
    workload = filled(1, 2)
    workload.start_next()
    assert set(workload.held()) == {attempt(1), attempt(2)}
    finish(workload, 1, status=Status.ERROR)
    assert set(workload.held()) == {attempt(1), attempt(2)}
    assert repr(workload) == "<Workload WorkloadStatistics(waiting=1, unstored=1, finished=1)>"


def test_what_is_told_of_a_failure_has_its_weight() -> None:
    plain = EngineResult(task_id(1), 1, Status.ERROR, b"p")
    failed = EngineResult(
        task_id(1), 1, Status.ERROR, b"p", error="ValueError: é", error_types=("a.B", "c.D")
    )
    assert result_size(failed) - result_size(plain) == len("ValueError: é".encode()) + 6


def test_what_was_begun_is_for_the_goodbye() -> None:
    workload = filled(1, 2, 3)
    for _ in range(2):
        workload.start_next()
    finish(workload, 1)
    assert sorted(workload.begun() or ()) == [attempt(1), attempt(2)]
    workload.on_stored(1)
    assert workload.begun() == [attempt(2)]


def test_more_than_a_goodbye_can_say_is_not_said() -> None:
    workload = filled(*range(1, BEGUN_LIMIT + 2))
    for _ in range(BEGUN_LIMIT):
        workload.start_next()
    assert len(workload.begun() or ()) == BEGUN_LIMIT
    workload.start_next()
    assert workload.begun() is None
