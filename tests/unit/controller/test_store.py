"""What every history store promises; the same tests for all of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from enginery.controller.store import conditions as conditions_module
from enginery.controller.store.conditions import FIELDS, OPERATORS, Condition, MalformedTerm, parse_terms
from enginery.controller.store.memory import MemoryStore
from enginery.controller.store.rows import EngineRow, Place
from enginery.controller.store.sqlite import SqliteStore
from enginery.controller.store.store import (
    DISPLAYS_LIMIT_BYTES,
    TEXT_LIMIT_BYTES,
    VALUES_LIMIT_BYTES,
    HistoryStore,
)
from enginery.ids import NO_ENGINE, BlobId, ClientId, EngineId, EngineKey, TaskId, make_task_id
from enginery.protocol.history import (
    BlobDropped,
    BlobKept,
    BlobPlaced,
    ClientGone,
    ClientSeen,
    EngineGone,
    EngineJoined,
    HistoryFact,
    KeptDisplay,
    MalformedHistory,
    Published,
    TaskAccepted,
    TaskData,
    TaskDelivered,
    TaskDisplay,
    TaskEnded,
    TasksMoved,
    TasksPurged,
    TaskText,
    decode_call,
    decode_journal,
    decode_published,
    encode_call,
    encode_facts,
    encode_published,
    join_batches,
)
from enginery.protocol.messages import (
    EngineInfo,
    EngineLeft,
    Kind,
    Report,
    Status,
    TaskOptions,
    TaskResult,
    Term,
)

CLIENT = ClientId(0x3FA9C01B)
FUNCTION = BlobId(b"f" * 16)
OPTIONS = TaskOptions(Kind.CALL, FUNCTION, "square", label="night run", retries=2)


class OpenStore(Protocol):
    def __call__(
        self,
        *,
        record_limit: int = ...,
        payload_limit_bytes: int = ...,
        payload_age_s: float | None = ...,
        record_age_s: float | None = ...,
        now: Callable[[], float] = ...,
    ) -> HistoryStore: ...


@pytest.fixture(params=["memory", "sqlite"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    opened: list[HistoryStore] = []

    def open_one(
        *, record_limit: int = 1000, payload_limit_bytes: int = 1 << 20, **options: Any
    ) -> HistoryStore:
        limits = {"record_limit": record_limit, "payload_limit_bytes": payload_limit_bytes, **options}
        store: HistoryStore
        if request.param == "memory":
            store = MemoryStore(**limits)
        else:
            store = SqliteStore.open(tmp_path / "history.sqlite", **limits)
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


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_text_is_kept_in_the_order_in_which_it_came(store: HistoryStore, batches: int) -> None:
    """Also what was written after the end, by what a task has left running."""
    before, after = (TaskText(task(1), EngineId(3), "stdout", text) for text in ("before\n", "after\n"))
    facts = [accepted(1), before, ended(1), after]
    cuts = {1: [0, 4], 2: [0, 3, 4], 3: [0, 1, 3, 4]}[batches]
    for start, end in itertools.pairwise(cuts):
        teach(store, *facts[start:end])
    row = store.task(task(1))
    assert row is not None
    assert row.stdout == "before\nprinted\nafter\n"


def test_a_short_task_in_one_batch_is_the_same_row_as_in_three(store: HistoryStore) -> None:
    teach(store, accepted(1))
    teach(store, ended(1))
    teach(store, TaskDelivered(task(1)))
    teach(store, accepted(2), ended(2), TaskDelivered(task(2)))
    one, two = store.task(task(1)), store.task(task(2))
    assert one is not None
    assert two is not None
    assert two.call == accepted(2)
    two.task, two.first, two.submitted, two.started, two.completed, two.call = (
        one.task,
        one.first,
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


@pytest.mark.parametrize("order", ["oldest first", "in one batch"])
def test_payloads_go_by_age_and_rows_later(open_store: OpenStore, order: str) -> None:
    clock = [3000.0]
    store = open_store(payload_age_s=10.0, record_age_s=100.0, now=lambda: clock[0])
    facts = [fact for number in range(5) for fact in (accepted(number), ended(number))]
    teach(store, accepted(9))
    if order == "in one batch":
        teach(store, *facts)
    else:
        for number in range(5):
            teach(store, accepted(number), ended(number))

    def kept() -> list[tuple[int, bool]]:
        return [(row.number, row.payload is not None) for row in store.find(map(task, range(5)))]

    assert kept() == [(number, True) for number in range(5)]
    clock[0] = 3012.5  # they ended at 3000, 3001, …
    assert kept() == [(0, False), (1, False), (2, False), (3, True), (4, True)]
    assert store.statistics().payload_bytes > 0
    clock[0] = 3102.5
    assert kept() == [(3, False), (4, False)]
    assert store.statistics().payload_bytes == 0
    row = store.task(task(9))
    assert row is not None, "what has not ended is never forgotten"
    assert row.call is not None
    assert store.count() == 3


# ---------------------------------------------------------------- what tasks publish


def test_published_values_by_name_the_last_counts(store: HistoryStore) -> None:
    teach(store, accepted(1), TaskData(task(1), "x", b"1"))
    teach(store, TaskData(task(1), "y", b"2"), TaskData(task(1), "x", b"3"))
    row = store.task(task(1))
    assert row is not None
    assert (row.published.values, row.payload_bytes) == ({"x": b"3", "y": b"2"}, 0)
    teach(store, ended(1))
    row = store.task(task(1))
    assert row is not None
    without = row.payload_bytes
    teach(store, TaskData(task(1), "late", b"x" * 1000), TaskData(task(2), "unknown", b""))
    row = store.task(task(1))
    assert row is not None
    assert row.published.values["late"] == b"x" * 1000
    assert 1000 < row.payload_bytes - without < 1020
    assert store.statistics().payload_bytes == row.payload_bytes


@pytest.mark.parametrize("at_once", [True, False])
def test_the_report_of_the_first_end_stays(store: HistoryStore, at_once: bool) -> None:
    first, second = ended(1), ended(1)
    first.result.report, second.result.report = Report(0.3, "é"), Report(0.5)
    facts = [accepted(1), TaskData(task(1), "x", b"1"), first, second, accepted(2), ended(2)]
    if at_once:
        teach(store, *facts)
    else:
        for fact in facts:
            teach(store, fact)
    row, other = store.task(task(1)), store.task(task(2))
    assert row is not None
    assert other is not None
    assert (row.published.report, row.published.values) == (Report(0.3, "é"), {"x": b"1"})
    assert other.published == Published()
    assert store.statistics().payload_bytes == row.payload_bytes + other.payload_bytes


def test_values_in_the_batch_of_their_task(store: HistoryStore) -> None:
    teach(store, accepted(1), TaskData(task(1), "x", b"1"), ended(1), TaskData(task(1), "x", b"2"))
    row = store.task(task(1))
    assert row is not None
    assert row.published.values == {"x": b"2"}
    assert store.statistics().payload_bytes == row.payload_bytes


def test_values_of_one_task_are_bounded(store: HistoryStore) -> None:
    teach(store, accepted(1))
    half = b"x" * (VALUES_LIMIT_BYTES // 2)
    teach(store, TaskData(task(1), "a", half), TaskData(task(1), "b", half), TaskData(task(1), "c", b"small"))
    teach(store, TaskData(task(1), "a", b"now there is room"), TaskData(task(1), "b", half))
    row = store.task(task(1))
    assert row is not None
    assert row.published.values == {"a": b"now there is room", "b": half, "c": b"small"}


def test_values_go_with_the_other_payloads(open_store: OpenStore) -> None:
    store = open_store(payload_limit_bytes=10)
    teach(store, accepted(1), TaskData(task(1), "x", b"1"), ended(1))
    teach(store, TaskData(task(1), "x", b"2"))
    row = store.task(task(1))
    assert row is not None
    assert (row.published.values, row.payload_bytes, store.statistics().payload_bytes) == ({}, 0, 0)


def test_displays_are_kept_in_order_and_go_with_the_other_payloads(open_store: OpenStore) -> None:
    store = open_store(payload_limit_bytes=2000)
    teach(store, accepted(1), TaskDisplay(task(1), "display_data", b"a" * 100, 0, False))
    teach(store, TaskDisplay(task(1), "display_data", b"b", 100), TaskData(task(1), "x", b"1"))
    teach(
        store, ended(1), TaskDisplay(task(1), "clear_output", b"late"), TaskDisplay(task(2), "x", b"unknown")
    )
    row = store.task(task(1))
    assert row is not None
    assert row.published.displays == [
        KeptDisplay("display_data", b"a" * 100, 0, False),
        KeptDisplay("display_data", b"b", 100),
        KeptDisplay("clear_output", b"late"),
    ]
    assert (row.published.values, row.published.dropped) == ({"x": b"1"}, 0)
    assert 100 < row.payload_bytes == store.statistics().payload_bytes
    assert [found.published for found in store.find([task(1)])] == [row.published]
    teach(store, TaskDisplay(task(1), "display_data", b"c" * 2000))
    row = store.task(task(1))
    assert row is not None
    assert (row.published, row.payload_bytes, store.statistics().payload_bytes) == (Published(), 0, 0)


def test_displays_in_the_batch_of_their_task(store: HistoryStore) -> None:
    teach(store, accepted(1), TaskDisplay(task(1), "display_data", b"a"), ended(1))
    row = store.task(task(1))
    assert row is not None
    assert row.published.displays == [KeptDisplay("display_data", b"a")]
    assert store.statistics().payload_bytes == row.payload_bytes


def test_of_the_displays_of_one_task_the_last_are_kept(store: HistoryStore) -> None:
    teach(store, accepted(1))
    third = DISPLAYS_LIMIT_BYTES // 3
    for letter in "abcde":
        teach(store, TaskDisplay(task(1), letter, bytes(third)))
    row = store.task(task(1))
    assert row is not None
    assert [kept.kind for kept in row.published.displays] == ["c", "d", "e"]
    assert (row.published.dropped, row.published.display_bytes) == (2, 3 * third)


def test_what_a_task_publishes_as_bytes() -> None:
    published = Published({"x": b"1"}, [KeptDisplay("display_data", b"a", 0, False)], 1, 2)
    assert decode_published(encode_published(published)) == published
    assert (encode_published(Published()), decode_published(b"")) == (b"", Published())
    with pytest.raises(MalformedHistory, match="not what a task has published"):
        decode_published(b"\xc1")


# ---------------------------------------------------------------- found, searched, purged


def test_find_gives_complete_rows_of_those_that_are_known(store: HistoryStore) -> None:
    facts = [accepted(number, payload=b"x" * 60_000) for number in range(250)]
    teach(store, *facts, *(ended(number, payload=b"y" * 1000) for number in range(0, 250, 2)))
    asked = [task(number) for number in (*range(249, -1, -1), 999, 3)]
    rows = list(store.find(asked))
    assert [row.number for row in rows] == list(range(250))
    assert [row == store.task(row.task) for row in rows] == [True] * 250
    plain = list(store.find(asked, with_payloads=False))
    assert plain == [row.without_payloads() for row in rows]
    assert list(store.find([])) == []


def test_search_gives_the_oldest_first(store: HistoryStore) -> None:
    teach(store, *(accepted(number) for number in range(500, 0, -1)), ended(7))
    assert [row.number for row in store.search([], with_payloads=False)] == list(range(1, 501))
    (row,) = store.search(parse_terms([Term("status", "ne", None)]), with_payloads=True)
    assert row == store.task(task(7))
    (row,) = store.search(parse_terms([Term("stdout", "glob", "print*")]), with_payloads=False)
    assert (row.number, row.stdout, row.call, row.payload) == (7, "", None, None)


def test_rows_know_the_life_of_their_engine(store: HistoryStore) -> None:
    key = EngineKey("a" * 16)
    ends = [ended(number) for number in (1, 2)]
    for end in ends:
        end.result.engine_key = key
    teach(store, accepted(1, engine=EngineId(3)), accepted(2), ends[0])
    teach(store, ends[1])
    rows = list(store.search(parse_terms([Term("engine_key", "eq", key)]), with_payloads=False))
    assert [(row.number, row.engine, row.engine_key, row.direct) for row in rows] == [
        (1, EngineId(3), key, True),
        (2, EngineId(3), key, False),
    ]


def test_a_time_that_is_not_a_number_is_no_time(store: HistoryStore) -> None:
    odd = TaskResult(task(1), Status.OK, started=float("nan"), completed=float("nan"))
    teach(store, accepted(1), accepted(2), TaskEnded(odd))
    row = store.task(task(1))
    assert row is not None
    assert (row.status, row.started, row.completed) == (Status.OK, 0.0, 0.0)
    assert store.statistics().failure == ""


def test_purged_tasks_are_forgotten_if_they_have_ended(store: HistoryStore) -> None:
    facts = [fact for number in range(10) for fact in (accepted(number), ended(number))]
    teach(store, *facts, accepted(10))
    teach(store, TasksPurged([task(number) for number in (1, 2, 10, 99)]), TaskDelivered(task(1)))
    assert sorted(row.number for row in store.tasks()) == [0, 3, 4, 5, 6, 7, 8, 9, 10]
    statistics = store.statistics()
    assert (statistics.records, statistics.unfinished) == (9, 1)
    assert statistics.payload_bytes == sum(row.payload_bytes for row in store.tasks())
    teach(store, TasksPurged(store.ended_tasks()))
    assert (store.count(), store.statistics().payload_bytes) == (1, 0)


def test_ended_tasks_by_engine(store: HistoryStore) -> None:
    elsewhere = ended(2).result
    elsewhere.engine = EngineId(5)
    teach(store, accepted(1), ended(1), accepted(2), TaskEnded(elsewhere), accepted(3, engine=EngineId(5)))
    assert store.ended_tasks() == [task(1), task(2)]
    assert store.ended_tasks([EngineId(5)]) == [task(2)]
    assert store.ended_tasks([]) == []


# ---------------------------------------------------------------- questions


@pytest.fixture
def asked_store(open_store: OpenStore) -> HistoryStore:
    """1: not started; 2: done on engine 3; 3: failed on engine 3; 4: direct to engine 0, aborted."""
    store = open_store()
    aborted = TaskResult(task(4), Status.ABORTED, submitted=1004.0, completed=3004.0)
    teach(store, accepted(1), accepted(2), accepted(3), accepted(4, engine=EngineId(0)))
    teach(store, ended(2), ended(3, status=Status.ERROR, payload=b""), TaskEnded(aborted))
    teach(store, TaskDelivered(task(2)))
    return store


@pytest.mark.parametrize(
    ("field", "operator", "value", "expected"),
    [
        ("task", "eq", task(2), [2]),
        ("msg_id", "eq", "3fa9c01b-2", [2]),
        ("msg_id", "eq", "3FA9C01B-2", []),
        ("msg_id", "in", ["3fa9c01b-2", "3fa9c01b-4", "nonsense", None], [2, 4]),
        ("msg_id", "glob", "*-[34]", [3, 4]),
        ("msg_id", "gt", "3fa9c01b-2", [3, 4]),
        ("msg_id", "gt", "3fa9c01b-10", [2, 3, 4]),
        ("client", "eq", "3fa9c01b", [1, 2, 3, 4]),
        ("status", "eq", None, [1]),
        ("status", "ne", None, [2, 3, 4]),
        ("status", "ne", int(Status.OK), [1, 3, 4]),
        ("status", "in", [None, 1], [1, 3]),
        ("status", "in", [], []),
        ("status", "nin", [0, 1], [1, 4]),
        ("status", "nin", [None, 0], [3, 4]),
        ("status", "nin", [], [1, 2, 3, 4]),
        ("started", "eq", None, [1, 4]),
        ("started", "lt", 1e12, [2, 3]),
        ("started", "gt", 2002.0, [3]),
        ("started", "gte", 2002.0, [2, 3]),
        ("started", "lte", 2002, [2]),
        ("started", "lt", None, []),
        ("started", "eq", float("nan"), []),
        ("started", "ne", float("nan"), [1, 2, 3, 4]),
        ("started", "gte", None, []),
        ("completed", "exists", True, [2, 3, 4]),
        ("completed", "exists", False, [1]),
        ("submitted", "mod", [2, 0], [2, 4]),
        ("started", "mod", [2, 1], [3]),
        ("engine", "exists", True, [2, 3]),
        ("direct", "eq", True, [4]),
        ("delivered", "eq", 1, [2]),
        ("kind", "eq", int(Kind.CALL), [1, 2, 3, 4]),
        ("kind", "eq", "call", []),
        ("name", "glob", "squ?re", [1, 2, 3, 4]),
        ("name", "glob", "SQUARE", []),
        ("label", "all", ["night run"], [1, 2, 3, 4]),
        ("label", "all", ["night run", "other"], []),
        ("label", "all", [], []),
        ("stdout", "eq", "printed\n", [2, 3]),
        ("result", "eq", b"result", [2]),
        ("result", "exists", False, [1]),
        ("result", "eq", b"", [3, 4]),
        ("call", "gt", b"c", [1, 2, 3, 4]),
    ],
)
def test_every_operator(
    asked_store: HistoryStore, field: str, operator: str, value: Any, expected: list[int]
) -> None:
    conditions = parse_terms([Term(field, operator, value)])
    assert [row.number for row in asked_store.search(conditions, with_payloads=False)] == expected


def test_all_terms_must_hold_on_one_field_and_on_many(asked_store: HistoryStore) -> None:
    terms = [Term("started", "gt", 2001.0), Term("started", "lt", 2003.0), Term("stdout", "glob", "*")]
    assert [row.number for row in asked_store.search(parse_terms(terms), with_payloads=True)] == [2]
    terms = [Term("task", "in", [task(number) for number in range(5000)])] * 8
    assert len(list(asked_store.search(parse_terms(terms), with_payloads=False))) == 4
    terms = [Term("submitted", "gt", 1.0)] * 2000
    assert len(list(asked_store.search(parse_terms(terms), with_payloads=False))) == 4


@pytest.mark.parametrize(
    ("term", "text"),
    [
        (Term("msgid", "eq", 1), "the history has no field 'msgid'; its fields are: task msg_id first"),
        (Term("task", "le", 1), "there is no operator 'le'; the operators are: eq ne lt lte gt gte in nin"),
        (Term("task", "eq", [1]), "task eq wants one value, not [1]"),
        (Term("task", "in", 1), "task in wants a list of values, not 1"),
        (Term("task", "nin", [[1]]), "task nin wants a list of values, not [[1]]"),
        (Term("task", "lt", "x"), "task lt wants a number, not 'x'"),
        (Term("name", "gte", 1), "name gte wants text, not 1"),
        (Term("result", "gt", "x"), "result gt wants bytes, not 'x'"),
        (Term("task", "glob", "*"), "glob is for fields that hold text, and task does not"),
        (Term("name", "glob", 1), "name glob wants a pattern, not 1"),
        (Term("name", "mod", [2, 1]), "mod is for fields that hold numbers, and name does not"),
        (Term("task", "mod", [0, 1]), "task mod wants [divisor, remainder] with a divisor other than 0, not"),
        (Term("task", "mod", 2), "task mod wants [divisor, remainder] with a divisor other than 0, not 2"),
        (Term("task", "exists", "yes"), "task exists wants True or False, not 'yes'"),
        (Term("task", "eq", {"a": "x" * 200}), "task eq wants one value, not {'a': 'xxx"),
    ],
)  # fmt: skip
def test_a_term_without_meaning_is_refused_with_a_sentence(term: Term, text: str) -> None:
    with pytest.raises(MalformedTerm) as caught:
        Condition(term)
    assert str(caught.value).startswith(text)
    assert len(str(caught.value)) < 300


def test_the_table_of_fields_and_operators_is_complete() -> None:
    described = (conditions_module.__doc__ or "").split()
    assert set(FIELDS) <= set(described)
    assert set(OPERATORS) <= {word.strip(",") for word in described}


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


def test_clients_that_have_left_are_remembered_apart(store: HistoryStore) -> None:
    teach(
        store, ClientSeen(CLIENT, b"secret", 1.0), ClientSeen(ClientId(7), b"other", 2.0), ClientGone(CLIENT)
    )
    assert [seen.client for seen in store.clients()] == [ClientId(7)]
    assert store.gone_clients() == [CLIENT]


def test_where_unfinished_tasks_are(store: HistoryStore) -> None:
    key = EngineKey("a" * 16)
    calls = [accepted(number) for number in (1, 2, 3, 5)]
    teach(store, *calls, TasksMoved(key, [(call.task, 1, 2) for call in calls]))
    teach(store, TasksMoved(EngineKey(""), [(calls[1].task, 2, 1)]))
    teach(store, TaskEnded(TaskResult(calls[0].task, Status.OK, b"value")))
    assert store.places() == [
        Place(calls[1].task, EngineKey(""), 2, 1),
        Place(calls[2].task, key, 1, 2),
        Place(calls[3].task, key, 1, 2),
    ]
    assert store.numbers(CLIENT) == [(1, 3), (5, 5)]
    assert [result.task for result in store.undelivered(CLIENT)] == [calls[0].task]
    teach(store, TaskDelivered(calls[0].task))
    assert store.undelivered(CLIENT) == []


def test_where_blobs_are_until_they_are_dropped(store: HistoryStore) -> None:
    shared = BlobPlaced(FUNCTION, 1 << 20, True, "client-00000001/1.1")
    kept = BlobPlaced(BlobId(b"o" * 16), 4, False, "")
    assert store.append([shared, kept], buffers=[(kept.blob, [b"da", b"ta"])])
    assert store.flush(10.0)
    assert sorted(store.blob_places(), key=lambda place: place.blob) == [shared, kept]
    found = store.buffer(kept.blob)
    assert found is not None
    assert bytes(found) == b"data"
    teach(store, BlobDropped(FUNCTION), BlobDropped(kept.blob))
    assert store.blob_places() == []
    assert store.flush(10.0)
    assert store.buffer(kept.blob) is None


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
        TaskData(task(1), "x", b"payload"),
        TaskDisplay(task(1), "display_data", b"content", 5, False),
        TasksPurged([task(1), task(2)]),
    ]
    entry = join_batches([encode_facts(facts[:4]), encode_facts([]), encode_facts(facts[4:])])
    assert decode_journal(entry) == facts
    assert decode_call(encode_call(accepted(1))) == accepted(1)
