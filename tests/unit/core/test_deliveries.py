"""Results on their way to one client."""

from __future__ import annotations

from enginery.core.deliveries import Deliveries, Delivery, Held, HeldLimits, Parked
from enginery.ids import BlobId, EngineId, TaskId
from enginery.protocol.messages import Output, Status, TaskResult

BLOB = BlobId(b"b" * 16)


def result(number: int, *, payload: bytes = b"", blob: bool = False) -> TaskResult:
    return TaskResult(TaskId(number), Status.OK, payload, (BLOB,) if blob else ())


def delivery(number: int, *, size: int = 0, payload: bytes = b"", blob: bool = False) -> Delivery:
    return Delivery(result(number, payload=payload, blob=blob), [], size)


def filled(count: int, **arguments: int) -> Deliveries:
    deliveries = Deliveries(None, **arguments)
    for number in range(count):
        deliveries.add(delivery(number, size=0))
    return deliveries


def taken(deliveries: Deliveries) -> list[tuple[int, list[int]]]:
    groups = [(first, [one.result.task for one in results]) for first, results, _ in deliveries.take()]
    deliveries.check()
    return groups


def test_deliveries_are_numbered_and_sent_once() -> None:
    deliveries = filled(3)
    assert taken(deliveries) == [(0, [0, 1, 2])]
    assert taken(deliveries) == []
    deliveries.add(delivery(3, size=0))
    assert taken(deliveries) == [(3, [3])]
    assert len(deliveries) == 4


def test_what_has_arrived_is_let_go() -> None:
    deliveries = filled(3)
    taken(deliveries)
    assert [one.result.task for one in deliveries.on_received(2)] == [0, 1]
    assert deliveries.on_received(2) == []
    assert deliveries.on_received(1) == []
    assert [one.result.task for one in deliveries.everything()] == [2]


def test_what_was_not_sent_cannot_have_arrived() -> None:
    deliveries = filled(2)
    assert deliveries.on_received(10) == []
    assert taken(deliveries) == [(0, [0, 1])]


def test_after_a_hello_everything_that_was_not_taken_is_sent_again_in_order() -> None:
    deliveries = filled(3)
    taken(deliveries)
    deliveries.add(delivery(3, size=0))
    assert [one.result.task for one in deliveries.on_hello(1)] == [0]
    assert deliveries.next_number == 1
    assert taken(deliveries) == [(1, [1, 2, 3])]


def test_the_window_bounds_what_is_under_way() -> None:
    deliveries = Deliveries(window_bytes=3000)
    for number in range(10):
        deliveries.add(delivery(number, size=1000))
    assert taken(deliveries) == [(0, [0, 1, 2])]
    deliveries.on_received(1)
    assert taken(deliveries) == [(3, [3])]


def test_one_result_goes_out_whatever_its_size() -> None:
    deliveries = Deliveries(window_bytes=10)
    deliveries.add(delivery(0, size=1 << 30))
    deliveries.add(delivery(1, size=0))
    assert taken(deliveries) == [(0, [0])]
    deliveries.on_received(1)
    assert taken(deliveries) == [(1, [1])]


def test_results_with_blobs_and_without_do_not_share_a_record() -> None:
    deliveries = Deliveries()
    for number, blob in enumerate((False, False, True, False)):
        deliveries.add(delivery(number, blob=blob, size=0))
    assert taken(deliveries) == [(0, [0, 1]), (2, [2]), (3, [3])]


def test_records_are_bounded_in_count_and_bytes() -> None:
    assert [len(tasks) for _, tasks in taken(filled(2500))] == [1000, 1000, 500]
    deliveries = Deliveries()
    for number in range(10):
        deliveries.add(delivery(number, payload=bytes(1 << 16), size=0))
    assert [len(tasks) for _, tasks in taken(deliveries)] == [4, 4, 2]


def test_repr() -> None:
    deliveries = filled(2)
    taken(deliveries)
    deliveries.add(delivery(2, size=0))
    assert repr(deliveries) == "<Deliveries from 0: 2 under way, 1 waiting>"


# ---------------------------------------------------------------- held, and parked


LIMITS = HeldLimits(of_one=1000, of_all=2500, least=300, shared=5000)


def parked_tasks(deliveries: Deliveries) -> list[int]:
    deliveries.check()
    return [int(task) for task in deliveries.next_to_fetch()]


def test_what_one_client_does_not_take_is_bounded() -> None:
    deliveries = Deliveries(Held(LIMITS))
    assert not deliveries.is_full
    deliveries.add(delivery(0, size=999))
    assert not deliveries.is_full
    deliveries.add(delivery(1, size=1000))
    assert deliveries.is_full, "one more may be above"
    taken(deliveries)
    deliveries.on_received(1)
    assert deliveries.is_full
    deliveries.on_received(2)
    assert not deliveries.is_full
    deliveries.check()


def test_what_all_clients_do_not_take_is_bounded() -> None:
    held = Held(LIMITS)
    one, two, three = (Deliveries(held) for _ in range(3))
    one.add(delivery(0, size=900))
    two.add(delivery(1, size=1700))
    three.add(delivery(2, size=299))
    assert [one.is_full, two.is_full, three.is_full] == [True, True, False]
    three.add(delivery(3, size=2))
    assert three.is_full
    two.clear()
    assert not three.is_full
    assert repr(held) == "<Held 1201 bytes>"


def test_shared_memory_has_its_own_bound() -> None:
    deliveries = Deliveries(Held(LIMITS))
    deliveries.add(Delivery(result(0, blob=True), [], 100, 4999))
    assert not deliveries.is_full
    deliveries.add(Delivery(result(1, blob=True), [], 100, 1))
    assert deliveries.is_full
    taken(deliveries)
    deliveries.on_received(1)
    assert not deliveries.is_full


def test_what_is_parked_is_fetched_in_its_turn_when_there_is_room() -> None:
    deliveries = Deliveries(Held(LIMITS))
    deliveries.add(delivery(0, size=1000))
    for number in (1, 2):
        deliveries.park(TaskId(number), 400)
    assert (len(deliveries), deliveries.is_full) == (3, True)
    assert parked_tasks(deliveries) == [], "there is no room"
    taken(deliveries)
    deliveries.on_received(1)
    assert deliveries.is_full, "what comes now comes behind what is parked"
    assert parked_tasks(deliveries) == [1, 2]
    assert parked_tasks(deliveries) == [], "these are on their way"
    assert deliveries.fetched(TaskId(9)) is None
    for number in (1, 2):
        assert deliveries.fetched(TaskId(number)) == Parked(TaskId(number), 400)
        deliveries.add(delivery(number, size=400))
    assert not deliveries.is_full
    assert taken(deliveries) == [(1, [1, 2])]
    assert sorted(deliveries.owed) == [1, 2]
    assert [deliveries.settle(TaskId(number)) for number in (0, 1, 1, 2)] == [False, True, False, True]


def test_one_is_fetched_whatever_the_limits_are() -> None:
    nothing = HeldLimits(of_one=0, of_all=0, least=0, shared=0)
    deliveries = Deliveries(Held(nothing))
    assert deliveries.is_full
    deliveries.park(TaskId(1), 400)
    assert parked_tasks(deliveries) == [1]


def test_what_is_fetched_at_once_is_bounded() -> None:
    deliveries = Deliveries()
    for number in range(1000):
        deliveries.park(TaskId(number), 1)
    assert len(parked_tasks(deliveries)) == 500
    few = Deliveries()
    for number in range(10):
        few.park(TaskId(number), 20 << 20)
    assert parked_tasks(few) == [0, 1]


def said(number: int) -> TaskResult:
    return TaskResult(TaskId(number), Status.OK, outputs=2)


def test_after_a_hello_results_wait_for_what_their_tasks_have_said() -> None:
    """It may have been lost with the connection."""
    deliveries = Deliveries(Held(LIMITS))
    deliveries.add(Delivery(said(0), [], 100))
    deliveries.add(Delivery(said(1), [Output(TaskId(1), EngineId(0), "stdout", "all of it")], 100))
    deliveries.add(delivery(2, size=100))
    assert taken(deliveries) == [(0, [0, 1, 2])]
    deliveries.on_hello(0)
    assert (len(deliveries), deliveries.memory_bytes, deliveries.is_full) == (3, 300, False)
    assert taken(deliveries) == [(0, [1, 2])]
    assert parked_tasks(deliveries) == [0]
    parked = deliveries.fetched(TaskId(0))
    assert parked is not None
    assert parked.delivery == Delivery(said(0), [], 100), "its payload is here"
    assert deliveries.memory_bytes == 200
    assert not deliveries.owed


def test_what_has_more_to_say_is_not_fetched_before_it_has_said_it() -> None:
    deliveries = Deliveries(Held(LIMITS))
    deliveries.park(TaskId(1), 100, delivery(1, size=100), is_incomplete=True)
    deliveries.park(TaskId(2), 100, is_incomplete=True)
    deliveries.park(TaskId(3), 100)
    assert [deliveries.is_parked(TaskId(number)) for number in range(5)] == [False, True, True, True, False]
    assert parked_tasks(deliveries) == [3]
    deliveries.on_complete(TaskId(2))
    deliveries.on_complete(TaskId(9))
    assert deliveries.fetched(TaskId(3)) is not None
    assert parked_tasks(deliveries) == [2]
    assert deliveries.fetched(TaskId(2)) is not None
    deliveries.add(Delivery(said(4), [], 100))
    taken(deliveries)
    deliveries.on_hello(0, {TaskId(4)})
    assert parked_tasks(deliveries) == []
    for number in (4, 1):
        deliveries.on_complete(TaskId(number))
    assert parked_tasks(deliveries) == [4, 1]


def test_nothing_is_held_for_who_has_left() -> None:
    held = Held(LIMITS)
    deliveries = Deliveries(held)
    for number in (0, 1):
        deliveries.add(delivery(number, size=100))
    taken(deliveries)
    deliveries.add(delivery(2, size=100))
    deliveries.park(TaskId(3), 100)
    deliveries.park(TaskId(4), 100, delivery(4, size=100))
    assert [one.result.task for one in deliveries.everything()] == [0, 1, 2, 4]
    assert deliveries.clear() == [3]
    assert (len(deliveries), held.memory_bytes) == (0, 0)
    assert parked_tasks(deliveries) == []
    assert repr(deliveries) == "<Deliveries from 0: 0 under way, 0 waiting>"
