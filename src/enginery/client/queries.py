"""Questions about the history, as users write them; and what comes back, as they read it. Pure.

A query is a dictionary: ``{key: value}`` asks for equality, ``{key: {"$lt": value, ...}}`` for what the
operators say, and all of it must hold. Times are datetimes (without a zone: local time), texts of ISO format,
or seconds since the epoch; those that come back are aware, in UTC. What the operators mean is in
`enginery.controller.store.conditions`; this file only translates keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from typing import Any, NamedTuple

from enginery.ids import NO_ENGINE, format_task_id, task_client
from enginery.objects.packing import unpack
from enginery.protocol.messages import HistoryRecord, Kind, Status, Term

OPERATORS = ("$eq", "$ne", "$lt", "$lte", "$gt", "$gte", "$in", "$nin", "$glob", "$all", "$mod", "$exists")
_LISTS = ("$in", "$nin", "$all")
_NEVER = Term("task", "in", [])


class _Key(NamedTuple):
    """How a key of users is asked about: the field of the history, and its values there."""

    field: str
    to_stored: Callable[[Any], Any] = lambda value: value


def _moment(value: Any) -> Any:
    """Seconds since the epoch."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, date):
        return datetime.combine(value, time()).timestamp()
    return value


def _text(value: Any) -> Any:
    return "" if value is None else value  # what is not known of these is stored as no text


def _is_direct(value: Any) -> Any:
    return {"mux": True, "task": False}.get(value, -1) if isinstance(value, str) else value


_KEYS: Mapping[str, _Key] = {
    "msg_id": _Key("msg_id"),
    "client_uuid": _Key("client"),
    "engine_uuid": _Key("engine_key"),
    "engine_id": _Key("engine"),
    "name": _Key("name"),
    "label": _Key("label", _text),
    "queue": _Key("direct", _is_direct),
    "submitted": _Key("submitted", _moment),
    "started": _Key("started", _moment),
    "completed": _Key("completed", _moment),
    "received": _Key("completed", _moment),  # the controller has a result as soon as there is one
    "error": _Key("detail", _text),
    "stdout": _Key("stdout", _text),
    "stderr": _Key("stderr", _text),
}
QUERY_KEYS = (*_KEYS, "status", "resubmitted")

_WORDS: Mapping[str, Sequence[Status]] = {
    "ok": [Status.OK],
    "aborted": [Status.ABORTED],
    "cancelled": [Status.CANCELLED],
    "error": [status for status in Status if status not in (Status.OK, Status.ABORTED, Status.CANCELLED)],
}


# ---------------------------------------------------------------- there


def translate(query: Mapping[str, Any]) -> list[Term]:
    """The terms that a query states.

    Raises TypeError unless it is a dictionary, KeyError for a key or an operator that is not known,
    ValueError for a value that cannot be compared with.

    >>> translate({"label": "night", "started": {"$gt": 10, "$ne": None}})
    [Term(field='label', operator='eq', value='night'), Term(field='started', operator='gt', value=10), \
Term(field='started', operator='ne', value=None)]
    """
    if not isinstance(query, Mapping):
        raise TypeError(
            f"a query is a dictionary of keys and conditions, not {query!r} ({type(query).__name__})"
        )
    return [
        _term(key, operator, value)
        for key, condition in query.items()
        for operator, value in _conditions(key, condition)
    ]


def _conditions(key: str, condition: Any) -> Iterable[tuple[str, Any]]:
    if key not in QUERY_KEYS:
        raise KeyError(
            f"tasks cannot be asked for by {key!r}; the keys of a query are {', '.join(QUERY_KEYS)}"
        )
    if not isinstance(condition, Mapping):
        return [("$eq", condition)]
    for operator in condition:
        if operator not in OPERATORS:
            raise KeyError(f"there is no operator {operator!r}; the operators are {', '.join(OPERATORS)}")
    return condition.items()


def _term(key: str, operator: str, value: Any) -> Term:
    if operator in _LISTS:
        if not isinstance(value, (list, tuple, set, frozenset)):
            raise ValueError(f"{key}: {operator} needs a list of values, not {value!r}")
        value = list(value)
    if key == "status":
        return _status_term(operator, value)
    if key == "resubmitted":  # what is submitted again has an id of its own
        return _never_resubmitted(operator, value)
    field, to_stored = _KEYS[key]
    try:
        if operator in _LISTS:
            value = [to_stored(item) for item in value]
        elif operator not in ("$exists", "$mod", "$glob"):
            value = to_stored(value)
    except ValueError as error:
        raise ValueError(f"{key}: {value!r} is no time: {error}") from None
    return Term(field, operator.removeprefix("$"), list(value) if operator == "$mod" else value)


def _status_term(operator: str, value: Any) -> Term:
    if operator == "$exists":
        return Term("status", "exists", value)
    if operator not in ("$eq", "$ne", "$in", "$nin"):
        raise ValueError(f"status: {operator} means nothing for a status; use $eq, $ne, $in or $nin")
    found: list[int | None] = []
    for word in value if operator in _LISTS else [value]:
        if word is not None and word not in _WORDS:
            raise ValueError(f"status: {word!r} is none; it is 'ok', 'error', 'aborted', 'cancelled' or None")
        found.extend([None] if word is None else map(int, _WORDS[word]))
    return Term("status", "in" if operator in ("$eq", "$in") else "nin", found)


def _never_resubmitted(operator: str, value: Any) -> Term:
    holds = {
        "$eq": value is None,
        "$ne": value is not None,
        "$in": operator == "$in" and None in value,
        "$nin": operator == "$nin" and None not in value,
        "$exists": not value,
    }.get(operator, False)
    return Term("task", "nin", []) if holds else _NEVER


# ---------------------------------------------------------------- and back

RECORD_KEYS = (
    *("msg_id", "header", "metadata", "content", "buffers", "submitted", "client_uuid", "engine_uuid"),
    *("engine_id", "started", "completed", "resubmitted", "received", "result_header", "result_metadata"),
    *("result_content", "result_buffers", "queue", "name", "status", "execute_input", "execute_result"),
    *("error", "stdout", "stderr", "label"),
)
_BUFFERS = ("buffers", "result_buffers")
_NEED_PAYLOADS = frozenset({*_BUFFERS, "content", "execute_input", "execute_result", "stdout", "stderr"})


def check_keys(keys: Sequence[str] | None) -> list[str]:
    """The keys that a record is to have: those asked for and the id; by default all but buffers.

    Raises TypeError unless they are texts, KeyError for one that records do not have.
    """
    if keys is None:
        return [key for key in RECORD_KEYS if key not in _BUFFERS]
    if isinstance(keys, str) or not all(isinstance(key, str) for key in keys):
        raise TypeError(f"keys are a list of texts, not {keys!r}")
    unknown = set(keys).difference(RECORD_KEYS)
    if unknown:
        raise KeyError(f"records have no key {min(unknown)!r}; they have {', '.join(RECORD_KEYS)}")
    return ["msg_id", *(key for key in keys if key != "msg_id")]


def needs_payloads(keys: Iterable[str]) -> bool:
    """Whether these keys hold what the controller sends only if it is asked to."""
    return not _NEED_PAYLOADS.isdisjoint(keys)


def describe(record: HistoryRecord, keys: Iterable[str]) -> dict[str, Any]:
    """A record as users read it."""
    return {key: _READERS[key](record) for key in keys}


def when(seconds: float) -> datetime | None:
    """A time as users read it; None for never."""
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def status_word(status: Status | None) -> str | None:
    """``"ok"``, ``"error"``, ``"aborted"`` or ``"cancelled"``; None while it has not ended."""
    return next((word for word, statuses in _WORDS.items() if status in statuses), None)


def source_of(record: HistoryRecord) -> str | None:
    """The text that a task executes, if it is one that does, and its call is kept."""
    if record.kind is not Kind.EXECUTE or not record.call:
        return None
    return str(unpack(record.call)[0])


def _client(record: HistoryRecord) -> str:
    return f"{task_client(record.task):08x}"


def _header(record: HistoryRecord) -> dict[str, Any]:
    return {
        "msg_id": format_task_id(record.task),
        "msg_type": "execute_request" if record.kind is Kind.EXECUTE else "apply_request",
        "session": _client(record),
        "date": when(record.submitted),
    }


def _metadata(record: HistoryRecord) -> dict[str, Any]:
    return {"name": record.name, "label": record.label or None, "kind": record.kind.name.lower()}


def _content(record: HistoryRecord) -> dict[str, Any]:
    source = source_of(record)
    return {} if source is None else {"code": source}


def _result_header(record: HistoryRecord) -> dict[str, Any] | None:
    if record.status is None:
        return None
    return {
        "msg_type": "execute_reply" if record.kind is Kind.EXECUTE else "apply_reply",
        "date": when(record.completed),
    }


def _result_metadata(record: HistoryRecord) -> dict[str, Any] | None:
    if record.status is None:
        return None
    return {
        "status": status_word(record.status),
        "engine": record.engine_key or None,
        "engine_id": _engine(record),
        "started": when(record.started),
    }


def _result_content(record: HistoryRecord) -> dict[str, Any] | None:
    if record.status is None:
        return None
    content: dict[str, Any] = {"status": status_word(record.status)}
    if record.status is not Status.OK:
        ename, _, evalue = record.detail.partition(": ")
        content.update(ename=ename, evalue=evalue)
    return content


def _execute_result(record: HistoryRecord) -> Any:
    if record.kind is not Kind.EXECUTE or record.status is not Status.OK or not record.result:
        return None
    return unpack(record.result)


def _engine(record: HistoryRecord) -> int | None:
    return None if record.engine == NO_ENGINE else int(record.engine)


_READERS: Mapping[str, Callable[[HistoryRecord], Any]] = {
    "msg_id": lambda record: format_task_id(record.task),
    "header": _header,
    "metadata": _metadata,
    "content": _content,
    "buffers": lambda record: [record.call] if record.call else [],
    "submitted": lambda record: when(record.submitted),
    "client_uuid": _client,
    "engine_uuid": lambda record: record.engine_key or None,
    "engine_id": _engine,
    "started": lambda record: when(record.started),
    "completed": lambda record: when(record.completed),
    "resubmitted": lambda record: None,
    "received": lambda record: when(record.completed),
    "result_header": _result_header,
    "result_metadata": _result_metadata,
    "result_content": _result_content,
    "result_buffers": lambda record: [record.result] if record.result else [],
    "queue": lambda record: "mux" if record.direct else "task",
    "name": lambda record: record.name,
    "status": lambda record: status_word(record.status),
    "execute_input": source_of,
    "execute_result": _execute_result,
    "error": lambda record: record.detail or None,
    "stdout": lambda record: record.stdout,
    "stderr": lambda record: record.stderr,
    "label": lambda record: record.label or None,
}
