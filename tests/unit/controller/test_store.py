"""What every history store promises; the same tests for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from enginery.controller.store.memory import MemoryStore
from enginery.controller.store.sqlite import SqliteStore
from enginery.controller.store.store import TEXT_LIMIT_BYTES, EngineRow, HistoryStore
from enginery.ids import NO_ENGINE, BlobId, ClientId, EngineId, EngineKey, TaskId, make_task_id
from enginery.protocol.history import (
    BlobDropped,
    BlobKept,
    ClientSeen,
    EngineGone,
    EngineJoined,
    HistoryFact,
    TaskAccepted,
    TaskDelivered,
    TaskEnded,
    TaskText,
    decode_call,
    decode_journal,
    encode_call,
    encode_facts,
    join_batches,
)
from enginery.protocol.messages import EngineInfo, EngineLeft, Kind, Status, TaskOptions, TaskResult

CLIENT = ClientId(0x3FA9C01B)
FUNCTION = BlobId(b"f" * 16)
OPTIONS = TaskOptions(Kind.CALL, FUNCTION, "square", label="night run", retries=2)


class OpenStore(Protocol):
    def __call__(self, *, record_limit: int = ..., payload_limit_bytes: int = ...) -> HistoryStore: ...


@pytest.fixture(params=["memory", "sqlite"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    opened: list[HistoryStore] = []

    def open_one(*, record_limit: int = 1000, payload_limit_bytes: int = 1 << 20) -> HistoryStore:
        store: HistoryStore
        if request.param == "memory":
            store = MemoryStore(record_limit=record_limit, payload_limit_bytes=payload_limit_bytes)
        else:
            store = SqliteStore.open(
                tmp_path / "history.sqlite",
                record_limit=record_limit,
                payload_limit_bytes=payload_limit_bytes,
            )
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> HistoryStore:
    return open_store()


def task(number: int, client: ClientId = CLIENT) -> TaskId:
    return make_task_id(client, number)


def accepted(number: int, *, payload: bytes = b"call", engine: EngineId = NO_ENGINE) -> TaskAccepted:
    return TaskAccepted(task(number), 1000.0 + number, OPTIONS, payload, (BlobId(b"a" * 16),), engine)


def ended(number: int, *, payload: bytes = b"result", status: Status = Status.OK) -> TaskEnded:
    return TaskEnded(
        TaskResult(
            task(number),
            status,
            payload,
            (BlobId(b"r" * 16), BlobId(b"s" * 16)),
            EngineId(3),
            submitted=1000.0 + number,
            started=2000.0 + number,
            completed=3000.0 + number,
            stdout="printed\n",
            detail="why",
        )
    )


def teach(store: HistoryStore, *facts: HistoryFact) -> None:
    """Append one batch and wait until it is committed."""
    committed: list[str] = []
    assert store.append(facts, on_committed=lambda: committed.append("yes"))
    assert store.flush(10)
    assert committed == ["yes"]


# ---------------------------------------------------------------- tasks


def test_task_as_it_is_accepted_ended_and_delivered(store: HistoryStore) -> None:
    fact = accepted(17, engine=EngineId(2))
    teach(store, fact)
    row = store.task(task(17))
    assert row is not None
    assert (row.task, row.client, row.number) == (task(17), CLIENT, 17)
    assert (row.kind, row.name, row.label) == (Kind.CALL, "square", "night run")
    assert (row.status, row.engine, row.submitted) == (None, EngineId(2), 1017.0)
    assert (row.started, row.completed, row.delivered) == (0.0, 0.0, False)
    assert (row.call, row.payload, row.payload_bytes) == (fact, None, 0)

    teach(store, ended(17))
    row = store.task(task(17))
    assert row is not None
    assert (row.status, row.engine, row.submitted) == (Status.OK, EngineId(3), 1017.0)
    assert (row.started, row.completed, row.delivered) == (2017.0, 3017.0, False)
    assert (row.stdout, row.stderr, row.detail) == ("printed\n", "", "why")
    assert (row.payload, row.blobs) == (b"result", (b"r" * 16, b"s" * 16))
    assert row.call == fact
    assert row.payload_bytes >= len(b"call") + len(b"result") + len("printed\n")

    teach(store, TaskDelivered(task(17)))
    row = store.task(task(17))
    assert row is not None
    assert row.delivered


def test_a_short_task_in_one_batch_is_the_same_row_as_in_three(store: HistoryStore) -> None:
    teach(store, accepted(1))
    teach(store, ended(1))
    teach(store, TaskDelivered(task(1)))
    teach(store, accepted(2), ended(2), TaskDelivered(task(2)))
    one, two = store.task(task(1)), store.task(task(2))
    assert one is not None
    assert two is not None
    assert two.call == accepted(2)
    two.task, two.submitted, two.started, two.completed, two.call = (
        one.task,
        one.submitted,
        one.started,
        one.completed,
        one.call,
    )
    assert one == two


@pytest.mark.parametrize("status", list(Status))
def test_every_status(store: HistoryStore, status: Status) -> None:
    teach(store, accepted(0), ended(0, status=status))
    row = store.task(task(0))
    assert row is not None
    assert row.status is status


def test_the_first_acceptance_and_the_first_end_count(store: HistoryStore) -> None:
    teach(store, accepted(1, payload=b"first"), ended(1, payload=b"one"))
    teach(store, accepted(1, payload=b"second"), ended(1, payload=b"two", status=Status.ERROR))
    row = store.task(task(1))
    assert row is not None
    assert row.call is not None
    assert (row.call.payload, row.payload, row.status) == (b"first", b"one", Status.OK)
    assert store.count() == 1
    assert store.statistics().records == 1


def test_facts_about_unknown_tasks_are_ignored(store: HistoryStore) -> None:
    text = TaskText(task(5), EngineId(0), "stdout", "x")
    teach(store, ended(5), TaskDelivered(task(5)), text)
    assert store.task(task(5)) is None
    assert store.count() == 0
    assert store.statistics().payload_bytes == 0


def test_text_before_and_after_the_end(store: HistoryStore) -> None:
    teach(store, accepted(1))
    teach(
        store, TaskText(task(1), EngineId(0), "stdout", "a\0"), TaskText(task(1), EngineId(0), "stderr", "é")
    )
    teach(store, TaskText(task(1), EngineId(0), "stdout", "b"))
    teach(store, ended(1))
    row = store.task(task(1))
    assert row is not None
    assert (row.stdout, row.stderr) == ("a\0bprinted\n", "é")
    before = row.payload_bytes

    teach(store, TaskText(task(1), EngineId(0), "stdout", "late"))
    row = store.task(task(1))
    assert row is not None
    assert row.stdout == "a\0bprinted\nlate"
    assert row.payload_bytes == before + 4 == store.statistics().payload_bytes


def test_text_in_the_batch_of_its_task(store: HistoryStore) -> None:
    text = TaskText(task(1), EngineId(0), "stderr", "warned")
    teach(store, accepted(1), text, ended(1), accepted(2), TaskText(task(2), EngineId(0), "stdout", "so far"))
    one, two = store.task(task(1)), store.task(task(2))
    assert one is not None
    assert two is not None
    assert (one.stdout, one.stderr) == ("printed\n", "warned")
    assert (two.stdout, two.status) == ("so far", None)


def test_only_the_end_of_much_text_is_kept(store: HistoryStore) -> None:
    teach(store, accepted(1))
    for letter in "abc":
        teach(store, TaskText(task(1), EngineId(0), "stdout", letter * (TEXT_LIMIT_BYTES // 2)))
    row = store.task(task(1))
    assert row is not None
    assert row.stdout == "b" * (TEXT_LIMIT_BYTES // 2) + "c" * (TEXT_LIMIT_BYTES // 2)


def test_tasks_gives_the_newest_first_without_payloads(store: HistoryStore) -> None:
    teach(store, *(accepted(number) for number in range(10)), *(ended(number) for number in range(5)))
    rows = store.tasks(limit=3)
    assert [row.number for row in rows] == [9, 8, 7]
    assert [row.number for row in store.tasks()] == list(range(9, -1, -1))
    done = store.tasks()[-1]
    assert (done.number, done.status, done.payload, done.call) == (0, Status.OK, None, None)
    assert done.payload_bytes > 0
    assert store.tasks(limit=0) == []


def test_counts(store: HistoryStore) -> None:
    teach(store, *(accepted(number) for number in range(700)))
    teach(store, *(ended(number) for number in range(600)))
    assert store.count() == 700
    statistics = store.statistics()
    assert (statistics.records, statistics.unfinished) == (700, 100)
    assert (statistics.queued_bytes, statistics.unfilled_facts, statistics.failure) == (0, 0, "")
    assert statistics.payload_bytes == sum(row.payload_bytes for row in store.tasks())


def test_unfinished_gives_back_what_was_accepted(store: HistoryStore) -> None:
    calls = [accepted(number, payload=bytes([number % 256]) * 10) for number in range(450)]
    teach(store, *calls[::-1])
    teach(store, *(ended(number) for number in range(0, 450, 2)))
    assert list(store.unfinished()) == calls[1::2]


def test_rows_are_the_askers_own(store: HistoryStore) -> None:
    teach(store, accepted(1))
    row = store.task(task(1))
    assert row is not None
    row.name = "changed"
    again = store.task(task(1))
    assert again is not None
    assert again.name == "square"


# ---------------------------------------------------------------- bounds


def test_the_oldest_payloads_go_first_and_metadata_stays(open_store: OpenStore) -> None:
    store = open_store(payload_limit_bytes=50_000)
    for number in range(10):
        teach(store, accepted(number), ended(number, payload=b"x" * 10_000), TaskDelivered(task(number)))
    rows = [store.task(task(number)) for number in range(10)]
    kept = [row.number for row in rows if row is not None and row.payload is not None]
    assert kept == [6, 7, 8, 9]
    assert store.count() == 10
    first = rows[0]
    assert first is not None
    assert (first.name, first.status, first.completed) == ("square", Status.OK, 3000.0)
    assert (first.payload, first.call, first.stdout, first.payload_bytes) == (None, None, "", 0)
    assert store.statistics().payload_bytes == sum(row.payload_bytes for row in rows if row is not None)
    assert store.statistics().payload_bytes <= 50_000


def test_delivered_payloads_go_before_those_that_are_waited_for(open_store: OpenStore) -> None:
    store = open_store(payload_limit_bytes=50_000)
    for number in range(4):
        teach(store, accepted(number), ended(number, payload=b"x" * 10_000))
    teach(store, TaskDelivered(task(2)), TaskDelivered(task(3)))
    for number in range(4, 6):
        teach(store, accepted(number), ended(number, payload=b"x" * 10_000))
    rows = [store.task(task(number)) for number in range(6)]
    assert [row.number for row in rows if row is not None and row.payload is not None] == [0, 1, 4, 5]


def test_payloads_of_unfinished_tasks_are_never_dropped(open_store: OpenStore) -> None:
    store = open_store(payload_limit_bytes=1000)
    teach(store, *(accepted(number, payload=b"p" * 1000) for number in range(5)))
    teach(store, accepted(5), ended(5, payload=b"x" * 2000))
    assert [call.payload for call in store.unfinished()] == [b"p" * 1000] * 5
    row = store.task(task(5))
    assert row is not None
    assert row.payload is None


def test_late_text_of_a_task_without_payload_is_not_kept(open_store: OpenStore) -> None:
    store = open_store(payload_limit_bytes=10)
    teach(store, accepted(1), ended(1))
    teach(store, TaskText(task(1), EngineId(0), "stdout", "late"))
    row = store.task(task(1))
    assert row is not None
    assert (row.stdout, row.payload) == ("", None)
    assert store.statistics().payload_bytes == 0


def test_the_oldest_ended_rows_go_when_there_are_too_many(open_store: OpenStore) -> None:
    store = open_store(record_limit=20)
    for number in range(0, 30, 2):
        teach(store, accepted(number), accepted(number + 1), ended(number + 1))
    numbers = sorted(row.number for row in store.tasks())
    assert numbers == [*range(0, 21, 2), *range(21, 30)]
    assert store.count() == 20 == store.statistics().records
    assert store.statistics().unfinished == 15
    assert store.task(task(1)) is None


def test_a_batch_larger_than_the_bounds(open_store: OpenStore) -> None:
    store = open_store(record_limit=50, payload_limit_bytes=195_000)
    facts: list[HistoryFact] = []
    for number in range(3000):
        facts += accepted(number), ended(number, payload=b"x" * 10_000)
    teach(store, *facts)
    assert sorted(row.number for row in store.tasks()) == list(range(2950, 3000))
    assert [row.number for row in store.tasks() if row.payload_bytes] == list(range(2999, 2980, -1))
    assert store.statistics().payload_bytes == sum(row.payload_bytes for row in store.tasks())


# ---------------------------------------------------------------- engines, clients, blobs


def test_lives_of_engines(store: HistoryStore) -> None:
    one, two = EngineKey("a" * 16), EngineKey("b" * 16)
    teach(store, EngineJoined(EngineInfo(EngineId(0), one, "node1", 100), 10.0))
    teach(store, EngineJoined(EngineInfo(EngineId(1), two, "node2", 101), 11.0))
    teach(store, EngineGone(EngineLeft(EngineId(0), one, "killed by SIGKILL"), 20.0))
    assert store.engines() == [
        EngineRow(
            key=one,
            engine=EngineId(0),
            host="node1",
            pid=100,
            joined=10.0,
            left=20.0,
            cause="killed by SIGKILL",
        ),
        EngineRow(key=two, engine=EngineId(1), host="node2", pid=101, joined=11.0),
    ]


def test_clients_as_they_were_seen_last(store: HistoryStore) -> None:
    teach(store, ClientSeen(CLIENT, b"secret", 1.0), ClientSeen(ClientId(7), b"other", 2.0))
    teach(store, ClientSeen(CLIENT, b"secret", 3.0))
    assert store.clients() == [ClientSeen(ClientId(7), b"other", 2.0), ClientSeen(CLIENT, b"secret", 3.0)]


def test_blobs_stay_until_they_are_dropped(store: HistoryStore) -> None:
    other = BlobId(b"o" * 16)
    teach(store, BlobKept(FUNCTION, b"def"), BlobKept(other, b"ghi"), BlobKept(FUNCTION, b"ignored"))
    assert list(store.blobs()) == [BlobKept(FUNCTION, b"def"), BlobKept(other, b"ghi")]
    teach(store, BlobDropped(FUNCTION))
    assert list(store.blobs()) == [BlobKept(other, b"ghi")]


# ---------------------------------------------------------------- life


def test_commits_are_reported_in_order_and_once(store: HistoryStore) -> None:
    committed: list[int] = []
    for number in range(100):
        assert store.append([accepted(number)], on_committed=lambda n=number: committed.append(n))  # type: ignore[misc]
    assert store.flush(10)
    assert committed == list(range(100))
    assert store.count() == 100


def test_an_empty_batch_is_a_commit_too(store: HistoryStore) -> None:
    teach(store)
    assert store.count() == 0


def test_nothing_is_taken_after_close(store: HistoryStore) -> None:
    teach(store, accepted(1))
    store.close()
    store.close()
    assert store.append([accepted(2)], on_committed=lambda: pytest.fail("never")) is False
    assert store.flush(0)


# ---------------------------------------------------------------- bytes


def test_facts_as_bytes() -> None:
    facts: list[HistoryFact] = [
        accepted(1),
        ended(1),
        TaskDelivered(task(1)),
        TaskText(task(1), EngineId(0), "stdout", "text"),
        BlobKept(FUNCTION, b"data"),
        BlobDropped(FUNCTION),
        EngineJoined(EngineInfo(EngineId(0), EngineKey("a" * 16), "node1", 1), 1.0),
        EngineGone(EngineLeft(EngineId(0), EngineKey("a" * 16), "gone"), 2.0),
        ClientSeen(CLIENT, b"secret", 3.0),
    ]
    entry = join_batches([encode_facts(facts[:4]), encode_facts([]), encode_facts(facts[4:])])
    assert decode_journal(entry) == facts
    assert decode_call(encode_call(accepted(1))) == accepted(1)
