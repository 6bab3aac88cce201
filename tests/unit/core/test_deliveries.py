"""Results on their way to one client."""

from __future__ import annotations

from enginery.core.deliveries import Deliveries
from enginery.ids import BlobId, TaskId
from enginery.protocol.messages import Status, TaskResult

BLOB = BlobId(b"b" * 16)


def result(number: int, *, payload: bytes = b"", blob: bool = False) -> TaskResult:
    return TaskResult(TaskId(number), Status.OK, payload, (BLOB,) if blob else ())


def filled(count: int, **arguments: int) -> Deliveries:
    deliveries = Deliveries(**arguments)
    for number in range(count):
        deliveries.add(result(number), 0)
    return deliveries


def taken(deliveries: Deliveries) -> list[tuple[int, list[int]]]:
    groups = [(first, [result.task for result in results]) for first, results, _ in deliveries.take()]
    deliveries.check()
    return groups


def test_deliveries_are_numbered_and_sent_once() -> None:
    deliveries = filled(3)
    assert taken(deliveries) == [(0, [0, 1, 2])]
    assert taken(deliveries) == []
    deliveries.add(result(3), 0)
    assert taken(deliveries) == [(3, [3])]
    assert len(deliveries) == 4


def test_what_has_arrived_is_let_go() -> None:
    deliveries = filled(3)
    taken(deliveries)
    assert [result.task for result in deliveries.on_received(2)] == [0, 1]
    assert deliveries.on_received(2) == []
    assert deliveries.on_received(1) == []
    assert [result.task for result in deliveries.everything()] == [2]


def test_what_was_not_sent_cannot_have_arrived() -> None:
    deliveries = filled(2)
    assert deliveries.on_received(10) == []
    assert taken(deliveries) == [(0, [0, 1])]


def test_after_a_hello_everything_that_was_not_taken_is_sent_again_in_order() -> None:
    deliveries = filled(3)
    taken(deliveries)
    deliveries.add(result(3), 0)
    assert [result.task for result in deliveries.on_hello(1)] == [0]
    assert deliveries.next_number == 1
    assert taken(deliveries) == [(1, [1, 2, 3])]


def test_the_window_bounds_what_is_under_way() -> None:
    deliveries = Deliveries(window_bytes=3000)
    for number in range(10):
        deliveries.add(result(number), 1000)
    assert taken(deliveries) == [(0, [0, 1, 2])]
    deliveries.on_received(1)
    assert taken(deliveries) == [(3, [3])]


def test_one_result_goes_out_whatever_its_size() -> None:
    deliveries = Deliveries(window_bytes=10)
    deliveries.add(result(0), 1 << 30)
    deliveries.add(result(1), 0)
    assert taken(deliveries) == [(0, [0])]
    deliveries.on_received(1)
    assert taken(deliveries) == [(1, [1])]


def test_results_with_blobs_and_without_do_not_share_a_record() -> None:
    deliveries = Deliveries()
    for number, blob in enumerate((False, False, True, False)):
        deliveries.add(result(number, blob=blob), 0)
    assert taken(deliveries) == [(0, [0, 1]), (2, [2]), (3, [3])]


def test_records_are_bounded_in_count_and_bytes() -> None:
    assert [len(tasks) for _, tasks in taken(filled(2500))] == [1000, 1000, 500]
    deliveries = Deliveries()
    for number in range(10):
        deliveries.add(result(number, payload=bytes(1 << 16)), 0)
    assert [len(tasks) for _, tasks in taken(deliveries)] == [4, 4, 2]


def test_repr() -> None:
    deliveries = filled(2)
    taken(deliveries)
    deliveries.add(result(2), 0)
    assert repr(deliveries) == "<Deliveries from 0: 2 under way, 1 waiting>"
