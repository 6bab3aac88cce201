"""Whatever is asked, both stores answer as the slow, obvious reading of the question does."""

from __future__ import annotations

import fnmatch
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enginery.controller.store.conditions import FIELDS, parse_terms
from enginery.controller.store.memory import MemoryStore
from enginery.controller.store.rows import TaskRow
from enginery.controller.store.sqlite import SqliteStore
from enginery.ids import ClientId, EngineId, TaskId, format_task_id, make_task_id
from enginery.protocol import history as h
from enginery.protocol.messages import Kind, Status, TaskOptions, TaskResult, Term

NUMBERS = {
    "task", "first", "kind", "status", "direct", "engine", "submitted", "started", "completed", "delivered",
}  # fmt: skip
BYTES = {"call", "result"}
TEXTS = set(FIELDS) - NUMBERS - BYTES
ORDERS = {"lt": operator.lt, "lte": operator.le, "gt": operator.gt, "gte": operator.ge}

# Few values, so that questions meet tasks; the odd ones are where SQL and Python could differ.
words = st.sampled_from(
    ["", "f", "F", "[f]", "a*b", "a\0b", "é", "\U0001f600", "00000001-2", "00000001-02", "00000001"]
)
times = st.sampled_from([0.0, 1.0, 1.5, 2.0, -1.0, float("inf"), float("nan"), 2.0**53])
numbers = st.sampled_from(
    [-1, 0, 1, 2, 3, True, False, 1.0, 1.5, 2.0, -0.0, 2**53, 2**53 + 1, 2**63, 1e300, float("inf"),
     float("nan"), 1 << 32 | 1, float(1 << 32 | 1), 1 << 32 | 2]
)  # fmt: skip
blobs = st.sampled_from([b"", b"f", b"\0"])
scalars = st.one_of(st.none(), numbers, words, blobs)


def term(field: str) -> st.SearchStrategy[Term]:
    like = numbers if field in NUMBERS else blobs if field in BYTES else words
    some = st.one_of(st.none(), like, like, scalars)
    choices = [
        st.tuples(st.sampled_from(["eq", "ne"]), some),
        st.tuples(st.sampled_from(["in", "nin", "all"]), st.lists(some, max_size=3)),
        st.tuples(st.sampled_from(sorted(ORDERS)), st.one_of(st.none(), like)),
        st.tuples(st.just("exists"), st.booleans()),
    ]
    if field in TEXTS:
        patterns = st.sampled_from(["*", "?", "f", "[fF]", "[!f]*", "a*b", "[[]f]", "0000*-2", "", "*é*"])
        choices.append(st.tuples(st.just("glob"), patterns))
    if field in NUMBERS:
        choices.append(
            st.tuples(st.just("mod"), st.lists(st.sampled_from([-2, 1, 2, 3]), min_size=2, max_size=2))
        )
    return st.one_of(choices).map(lambda choice: Term(field, *choice))


any_terms = st.lists(st.sampled_from(sorted(FIELDS)).flatmap(term), max_size=2)


@st.composite
def histories(draw: st.DrawFn) -> list[h.HistoryFact]:
    facts: list[h.HistoryFact] = []
    for number in range(draw(st.integers(1, 6))):
        task = make_task_id(draw(st.sampled_from([ClientId(1), ClientId(2**31 - 1)])), number)
        options = TaskOptions(draw(st.sampled_from(Kind)), name=draw(words), label=draw(words))
        engine = EngineId(draw(st.sampled_from([-1, 0, 2])))
        submitted = draw(st.sampled_from([1.0, 1.5, 2.0]))
        first = draw(st.sampled_from([TaskId(0), make_task_id(ClientId(1), 1)]))
        facts.append(h.TaskAccepted(task, submitted, options, draw(blobs), (), engine, first))
        if draw(st.booleans()):
            result = TaskResult(
                task, draw(st.sampled_from(Status)), draw(blobs), (), engine, submitted,
                draw(times), draw(times), draw(words), draw(words), detail=draw(words),
            )  # fmt: skip
            result.engine_key = draw(words)
            facts.append(h.TaskEnded(result))
        if draw(st.booleans()):
            facts.append(h.TaskDelivered(task))
    return facts


def read(row: TaskRow, field: str) -> Any:
    if field in ("msg_id", "client"):
        return format_task_id(row.task)[: 8 if field == "client" else None]
    if field == "call":
        return None if row.call is None else row.call.payload
    if field == "result":
        return row.payload
    value = getattr(row, field)
    is_nothing = {"engine": -1, "engine_key": "", "submitted": 0.0, "started": 0.0, "completed": 0.0}
    return None if field in is_nothing and value == is_nothing[field] else value


def meets(row: TaskRow, asked: Term) -> bool:
    """The question read word by word."""
    field, wanted = read(row, asked.field), asked.value
    match asked.operator:
        case "eq":
            return bool(field == wanted)
        case "ne":
            return bool(field != wanted)
        case "in":
            return any(field == one for one in wanted)
        case "nin":
            return not any(field == one for one in wanted)
        case "all":
            return bool(wanted) and all(field == one for one in wanted)
        case "exists":
            return bool((field is not None) == wanted)
        case "glob":
            return field is not None and fnmatch.fnmatchcase(field, wanted)
        case "mod":
            return field is not None and field % wanted[0] == wanted[1]
    return field is not None and wanted is not None and bool(ORDERS[asked.operator](field, wanted))


def empty(store: SqliteStore) -> None:
    """Forget what the example before has left; its ids come again."""
    assert store.append([h.TaskEnded(TaskResult(call.task, Status.OK)) for call in store.unfinished()])
    assert store.append([h.TasksPurged(store.ended_tasks())])
    assert store.count() == 0


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore.open(tmp_path / "history.sqlite")
    yield store
    store.close()


@pytest.mark.parametrize("field", sorted(FIELDS))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories(), st.data(), st.booleans())
def test_both_stores_answer_as_the_oracle(
    field: str,
    sqlite_store: SqliteStore,
    facts: list[h.HistoryFact],
    data: st.DataObject,
    full: bool,
) -> None:
    alone = st.lists(term(field), min_size=10, max_size=15).map(lambda asked: [[one] for one in asked])
    together = st.lists(st.tuples(term(field), any_terms).map(lambda pair: [pair[0], *pair[1]]), max_size=5)
    questions = [[], *data.draw(alone), *data.draw(together)]
    empty(sqlite_store)
    memory = MemoryStore()
    for store in (memory, sqlite_store):
        assert store.append(facts)
    rows = list(memory.search([], with_payloads=True))
    assert [(row.submitted, row.task) for row in rows] == sorted((row.submitted, row.task) for row in rows)
    for question in questions:
        conditions = parse_terms(question)
        expected = [row for row in rows if all(meets(row, asked) for asked in question)]
        if not full:
            expected = [row.without_payloads() for row in expected]
        for store in (memory, sqlite_store):
            found = list(store.search(conditions, with_payloads=full))
            assert [_plain(row) for row in found] == [_plain(row) for row in expected], (store, question)


def _plain(row: TaskRow) -> TaskRow:
    """What is counted of payloads differs between stores."""
    row.payload_bytes = 0
    return row
