"""Queries of users as terms, and records as users read them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from enginery.client.queries import OPERATORS, RECORD_KEYS, check_keys, describe, needs_payloads, translate
from enginery.ids import NO_ENGINE, ClientId, EngineId, make_task_id
from enginery.objects.packing import pack
from enginery.protocol.messages import HistoryRecord, Kind, Status, Term

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECONDS = MOMENT.timestamp()


def terms(query: dict[str, Any]) -> list[tuple[str, str, Any]]:
    return [(term.field, term.operator, term.value) for term in translate(query)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, []),
        ({"msg_id": "0abcdef0-1"}, [("msg_id", "eq", "0abcdef0-1")]),
        ({"msg_id": {"$in": ("a", "b")}}, [("msg_id", "in", ["a", "b"])]),
        ({"client_uuid": {"$glob": "0a*"}}, [("client", "glob", "0a*")]),
        ({"engine_uuid": None}, [("engine_key", "eq", None)]),
        ({"engine_id": {"$mod": (2, 1)}}, [("engine", "mod", [2, 1])]),
        ({"label": None}, [("label", "eq", "")]),
        ({"label": {"$nin": ["a", None]}}, [("label", "nin", ["a", ""])]),
        ({"error": {"$ne": None}}, [("detail", "ne", "")]),
        ({"queue": "mux"}, [("direct", "eq", True)]),
        ({"queue": {"$in": ["task", "other"]}}, [("direct", "in", [False, -1])]),
        ({"started": None}, [("started", "eq", None)]),
        ({"received": {"$exists": True}}, [("completed", "exists", True)]),
        ({"status": "ok"}, [("status", "in", [0])]),
        ({"status": {"$ne": None}}, [("status", "nin", [None])]),
        ({"status": {"$in": ["ok", "aborted", None]}}, [("status", "in", [0, 2, None])]),
        ({"resubmitted": None}, [("task", "nin", [])]),
        ({"resubmitted": {"$ne": None}}, [("task", "in", [])]),
        ({"resubmitted": {"$exists": True}}, [("task", "in", [])]),
        ({"resubmitted": {"$gt": MOMENT}}, [("task", "in", [])]),
        (
            {"submitted": {"$gte": 1, "$lt": 2}, "name": "f"},
            [("submitted", "gte", 1), ("submitted", "lt", 2), ("name", "eq", "f")],
        ),
    ],
)
def test_queries_become_terms(query: dict[str, Any], expected: list[tuple[str, str, Any]]) -> None:
    assert terms(query) == expected


@pytest.mark.parametrize(
    "moment",
    [
        MOMENT,
        MOMENT.astimezone(timezone(timedelta(hours=5))),
        MOMENT.astimezone().replace(tzinfo=None),  # local time
        "2026-01-02T03:04:05+00:00",
        SECONDS,
    ],
)
@pytest.mark.parametrize("operator", ["$eq", "$gt", "$lte"])
def test_times_become_seconds(moment: Any, operator: str) -> None:
    assert terms({"completed": {operator: moment}}) == [("completed", operator[1:], SECONDS)]
    assert terms({"completed": {"$in": [moment, None]}}) == [("completed", "in", [SECONDS, None])]


def test_a_date_is_its_midnight() -> None:
    day = date(2026, 1, 2)
    assert terms({"completed": day}) == [("completed", "eq", datetime(2026, 1, 2).astimezone().timestamp())]


def test_an_operator_that_is_not_known_is_answered_with_those_that_are() -> None:
    with pytest.raises(
        KeyError, match=r"no operator '\$le'; the operators are \$eq, \$ne, \$lt, \$lte"
    ) as caught:
        translate({"started": {"$le": 5}})
    assert all(operator in str(caught.value) for operator in OPERATORS)
    with pytest.raises(KeyError, match="no operator 'a'"):
        translate({"label": {"a": 1}})


@pytest.mark.parametrize(
    ("query", "error", "sentence"),
    [
        (
            {"nonsense": 1},
            KeyError,
            "tasks cannot be asked for by 'nonsense'; the keys of a query are msg_id,",
        ),
        ({"buffers": 1}, KeyError, "tasks cannot be asked for by 'buffers'"),
        ([], TypeError, "a query is a dictionary of keys and conditions"),
        ({"label": {"$in": "abc"}}, ValueError, r"label: \$in needs a list of values, not 'abc'"),
        ({"started": "yesterday"}, ValueError, "started: 'yesterday' is no time"),
        (
            {"status": "fine"},
            ValueError,
            "status: 'fine' is none; it is 'ok', 'error', 'aborted', 'cancelled' or None",
        ),
        ({"status": {"$lt": "ok"}}, ValueError, r"status: \$lt means nothing for a status"),
    ],
)
def test_queries_that_mean_nothing(query: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        translate(query)


# ---------------------------------------------------------------- records


def record(**changes: Any) -> HistoryRecord:
    fields: dict[str, Any] = {
        "task": make_task_id(ClientId(5), 7),
        "kind": Kind.CALL,
        "name": "simulate",
        "label": "night",
        "status": Status.OK,
        "direct": True,
        "engine": EngineId(3),
        "engine_key": "key3",
        "submitted": SECONDS,
        "started": SECONDS + 1,
        "completed": SECONDS + 2,
        "delivered": True,
        "call": b"call",
        "result": b"result",
    }
    return HistoryRecord(**{**fields, **changes})


def test_a_record_as_users_read_it() -> None:
    found = describe(record(stdout="text"), RECORD_KEYS)
    assert tuple(found) == RECORD_KEYS
    later = [MOMENT + timedelta(seconds=n) for n in range(3)]
    assert (found["submitted"], found["started"], found["completed"]) == tuple(later)
    assert found["received"] == later[2]
    assert found["submitted"].utcoffset() == timedelta(0)
    assert (found["msg_id"], found["client_uuid"]) == ("00000005-7", "00000005")
    assert (found["engine_uuid"], found["engine_id"], found["queue"]) == ("key3", 3, "mux")
    assert (found["buffers"], found["result_buffers"]) == ([b"call"], [b"result"])
    assert (found["label"], found["stdout"], found["error"], found["resubmitted"]) == (
        "night",
        "text",
        None,
        None,
    )
    assert found["header"]["msg_type"] == "apply_request"
    assert found["result_header"]["msg_type"] == "apply_reply"
    assert found["result_content"] == {"status": "ok"}
    assert found["result_metadata"]["engine"] == "key3"


def test_a_record_of_a_task_that_has_not_ended() -> None:
    pending = record(
        status=None,
        direct=False,
        engine=NO_ENGINE,
        engine_key="",
        started=0.0,
        completed=0.0,
        result=b"",
        label="",
    )
    found = describe(pending, RECORD_KEYS)
    nothing = (
        "status",
        "started",
        "completed",
        "received",
        "engine_id",
        "engine_uuid",
        "label",
        "result_header",
    )
    assert {key: found[key] for key in nothing} == dict.fromkeys(nothing)
    assert found["result_buffers"] == []
    assert found["queue"] == "task"


def test_a_record_of_a_task_that_failed() -> None:
    found = describe(record(status=Status.ERROR, detail="ValueError: no: thing"), RECORD_KEYS)
    assert found["status"] == "error"
    assert found["error"] == "ValueError: no: thing"
    assert found["result_content"] == {"status": "error", "ename": "ValueError", "evalue": "no: thing"}


def test_a_record_of_text_that_was_executed() -> None:
    reply = {"execution_count": 1, "data": {"text/plain": "6"}, "metadata": {}}
    executed = record(
        kind=Kind.EXECUTE, call=pack(("1 + 5", "file", False)).inline, result=pack(reply).inline
    )
    found = describe(executed, ["msg_id", "execute_input", "execute_result", "content", "header"])
    assert found["execute_input"] == "1 + 5"
    assert found["execute_result"] == reply
    assert found["content"] == {"code": "1 + 5"}
    assert found["header"]["msg_type"] == "execute_request"
    dropped = describe(record(kind=Kind.EXECUTE, call=b"", result=b""), ["execute_input", "execute_result"])
    assert dropped == {"execute_input": None, "execute_result": None}


def test_keys() -> None:
    assert check_keys(["label", "msg_id"]) == ["msg_id", "label"]
    assert set(RECORD_KEYS) - set(check_keys(None)) == {"buffers", "result_buffers"}
    assert not needs_payloads(["msg_id", "label", "completed", "header"])
    assert needs_payloads(["stdout"])
    assert needs_payloads(["buffers"])
    with pytest.raises(KeyError, match="records have no key 'nonsense'; they have msg_id, header"):
        check_keys(["nonsense"])
    for wrong in ("label", [5]):
        with pytest.raises(TypeError, match="keys are a list of texts"):
            check_keys(wrong)  # type: ignore[arg-type]


def test_terms_can_be_sent() -> None:
    for term in translate({"submitted": {"$in": [MOMENT]}, "status": "error", "label": {"$ne": None}}):
        assert isinstance(term, Term)
        assert isinstance(term.value, (str, list))
        if isinstance(term.value, list):
            assert all(type(value) in (int, float) for value in term.value)
