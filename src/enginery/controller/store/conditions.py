"""The query language of the history: conditions on single fields, with one meaning for every store.

`Condition.holds` is what a condition means. A store may have its tables decide where `Condition.sql` says
how, which it does only where the answer is the same for every row.

=========== =========== ==========================================================================
field       holds       of a task
=========== =========== ==========================================================================
task        number      its id
msg_id      text        its id as users see it, ``"3fa9c01b-17"``
first       number      the id of the first task of its call, as the user knows that
client      text        the part of that before the dash
kind        number      of `enginery.protocol.messages.Kind`
name        text        of the function
label       text        given by its view
status      number      of `enginery.protocol.messages.Status`; None = has not ended
direct      bool        whether it was addressed to an engine
engine      number      where it ran, or is addressed to; None = nowhere yet
engine_key  text        the life of that engine; None = no engine had it
submitted   number      seconds since the epoch; None = never, for `started` and `completed` too
started     number
completed   number
delivered   bool        whether its client has the result
detail      text        why it failed, in one line
stdout      text        what it has written
stderr      text
call        bytes       the packed arguments; None = no longer kept
result      bytes       the packed result; None = has not ended, or is no longer kept
=========== =========== ==========================================================================

=========== ==========================================================================================
operator    holds if the field
=========== ==========================================================================================
eq, ne      equals the value, or does not. None equals None only; a bool is the number 0 or 1
lt lte      is less than the value, less or equal, greater, greater or equal. Never for None on either
gt gte      side
in, nin     equals one of a list of values, or none of them
all         equals every one of a list of values that is not empty
glob        matches the pattern, case included; text fields only, never for None
mod         leaves the remainder when divided: the value is ``[divisor, remainder]``. Never for None
exists      is not None (value True), or is None (value False)
=========== ==========================================================================================
"""

from __future__ import annotations

import fnmatch
import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from enginery.controller.store.rows import TaskRow
from enginery.ids import NO_ENGINE, format_task_id, parse_task_id
from enginery.protocol.messages import Term

Value = bool | int | float | str | bytes | None
_SCALARS = (bool, int, float, str, bytes, type(None))
NUMBER, TEXT, BYTES = "a number", "text", "bytes"
_TYPES: Final[dict[str, tuple[type, ...]]] = {NUMBER: (bool, int, float), TEXT: (str,), BYTES: (bytes,)}
_SQL_VALUES = 10_000
"""Values in one condition that are given to SQLite; it takes 32,766 in a statement."""


class MalformedTerm(Exception):
    """A term that means nothing. The text says what was wrong with it."""


class _NotExact(Exception):
    """SQLite would not answer just as `Condition.holds` does."""


# ---------------------------------------------------------------- fields


class Field(NamedTuple):
    """A field that can be asked about."""

    holds: str  # NUMBER, TEXT or BYTES, and in some fields None
    read: Callable[[TaskRow], Value]
    column: str = ""  # the same as an expression of SQL; empty = there is none
    to_column: Callable[[Value], Any] = lambda value: value  # raises _NotExact
    is_ordered: bool = True  # the column sorts as the field does
    is_payload: bool = False


def _number(value: Value) -> int | float:
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise _NotExact


def _text(value: Value) -> str:
    if isinstance(value, str):
        return value
    raise _NotExact


def _task_of(value: Value) -> int:
    try:
        task = parse_task_id(_text(value))
        if 0 <= task < 1 << 63 and format_task_id(task) == value:
            return task
    except ValueError:
        pass
    raise _NotExact


FIELDS: Final[dict[str, Field]] = {
    "task": Field(NUMBER, lambda row: row.task, "task", _number),
    "msg_id": Field(TEXT, lambda row: format_task_id(row.task), "task", _task_of, is_ordered=False),
    "first": Field(NUMBER, lambda row: row.first, "first", _number),
    "client": Field(TEXT, lambda row: format_task_id(row.task).partition("-")[0]),
    "kind": Field(NUMBER, lambda row: int(row.kind), "kind", _number),
    "name": Field(TEXT, lambda row: row.name, "name", _text),
    "label": Field(TEXT, lambda row: row.label, "label", _text),
    "status": Field(NUMBER, lambda row: None if row.status is None else int(row.status), "status", _number),
    "direct": Field(NUMBER, lambda row: row.direct, "direct", _number),
    "engine": Field(
        NUMBER,
        lambda row: None if row.engine == NO_ENGINE else row.engine,
        f"nullif(engine, {NO_ENGINE})",
        _number,
    ),
    "engine_key": Field(TEXT, lambda row: row.engine_key or None, "nullif(engine_key, '')", _text),
    "submitted": Field(NUMBER, lambda row: row.submitted or None, "nullif(submitted, 0)", _number),
    "started": Field(NUMBER, lambda row: row.started or None, "nullif(started, 0)", _number),
    "completed": Field(NUMBER, lambda row: row.completed or None, "nullif(completed, 0)", _number),
    "delivered": Field(NUMBER, lambda row: row.delivered, "delivered", _number),
    "detail": Field(TEXT, lambda row: row.detail, "detail", _text),
    "stdout": Field(TEXT, lambda row: row.stdout, is_payload=True),
    "stderr": Field(TEXT, lambda row: row.stderr, is_payload=True),
    "call": Field(BYTES, lambda row: None if row.call is None else row.call.payload, is_payload=True),
    "result": Field(BYTES, lambda row: row.payload, is_payload=True),
}

# ---------------------------------------------------------------- operators

_ORDERS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}
_SQL_ORDERS: Final = {"lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
OPERATORS: Final = ("eq", "ne", *_ORDERS, "in", "nin", "all", "glob", "mod", "exists")


class Condition:
    """One condition on one field of a task. Raises MalformedTerm where a term has no meaning."""

    __slots__ = ("_field", "_test", "name", "operator", "value")

    def __init__(self, term: Term) -> None:
        if term.field not in FIELDS:
            known = " ".join(FIELDS)
            raise MalformedTerm(f"the history has no field {term.field!r}; its fields are: {known}")
        if term.operator not in OPERATORS:
            known = " ".join(OPERATORS)
            raise MalformedTerm(f"there is no operator {term.operator!r}; the operators are: {known}")
        self.name = term.field
        self.operator = term.operator
        self.value = term.value
        self._field = FIELDS[term.field]
        self._test = self._make_test()

    def __repr__(self) -> str:
        return f"<Condition {self.name} {self.operator} {self.value!r}>"

    @property
    def needs_payloads(self) -> bool:
        """Whether `holds` looks at what a row without payloads lacks."""
        return self._field.is_payload

    def holds(self, row: TaskRow) -> bool:
        return self._test(self._field.read(row))

    # ------------------------------------------------------------ meaning

    def _make_test(self) -> Callable[[Any], bool]:  # noqa: PLR0911 - one for each operator
        value = self.value
        match self.operator:
            case "eq":
                self._check(isinstance(value, _SCALARS), "one value")
                return lambda field: bool(field == value)
            case "ne":
                self._check(isinstance(value, _SCALARS), "one value")
                return lambda field: bool(field != value)
            case "in":
                values = self._values()
                return lambda field: field in values
            case "nin":
                values = self._values()
                return lambda field: field not in values
            case "all":
                self._values()
                return lambda field: bool(value) and all(field == item for item in value)
            case "glob":
                return self._make_glob()
            case "mod":
                return self._make_mod()
            case "exists":
                self._check(isinstance(value, int) and value in (0, 1), "True or False")
                return lambda field: (field is not None) == value
        compare = _ORDERS[self.operator]
        self._check(value is None or isinstance(value, _TYPES[self._field.holds]), self._field.holds)
        return lambda field: field is not None and value is not None and compare(field, value)

    def _make_glob(self) -> Callable[[Any], bool]:
        if self._field.holds != TEXT:
            raise MalformedTerm(f"glob is for fields that hold text, and {self.name} does not")
        self._check(isinstance(self.value, str), "a pattern")
        try:
            match = re.compile(fnmatch.translate(self.value)).match
        except re.error as error:
            raise MalformedTerm(f"{self.value!r} is no pattern: {error}") from None
        return lambda field: field is not None and match(field) is not None

    def _make_mod(self) -> Callable[[Any], bool]:
        if self._field.holds != NUMBER:
            raise MalformedTerm(f"mod is for fields that hold numbers, and {self.name} does not")
        match self.value:
            case [int() as divisor, int() as remainder] if divisor:
                return lambda field: field is not None and field % divisor == remainder
        raise self._malformed("[divisor, remainder] with a divisor other than 0")

    def _values(self) -> frozenset[Value]:
        # In a set a value that does not even equal itself (not a number) would be found.
        self._check(
            isinstance(self.value, list) and all(isinstance(item, _SCALARS) for item in self.value),
            "a list of values",
        )
        return frozenset(item for item in self.value if item == item)  # noqa: PLR0124

    def _check(self, is_right: bool, wanted: str) -> None:
        if not is_right:
            raise self._malformed(wanted)

    def _malformed(self, wanted: str) -> MalformedTerm:
        given = repr(self.value)
        given = given if len(given) <= 100 else given[:97] + "..."
        return MalformedTerm(f"{self.name} {self.operator} wants {wanted}, not {given}")

    # ------------------------------------------------------------ tables

    def sql(self) -> tuple[str, list[Any]] | None:
        """The same as an expression of SQL over the columns of `task`; None if there is none."""
        if not self._field.column:
            return None
        try:
            return self._sql(self._field.column)
        except _NotExact:
            return None

    def _sql(self, column: str) -> tuple[str, list[Any]]:
        value, to_column = self.value, self._field.to_column
        if self.operator == "exists":
            return f"{column} IS {'NOT ' if value else ''}NULL", []
        if self.operator in ("eq", "ne"):
            if value is None:
                return f"{column} IS {'' if self.operator == 'eq' else 'NOT '}NULL", []
            return f"{column} {'=' if self.operator == 'eq' else 'IS NOT'} ?", [to_column(value)]
        if self.operator in ("in", "nin") and len(value) <= _SQL_VALUES:
            values = [to_column(item) for item in value if item is not None]
            marks = f"({','.join('?' * len(values))})"
            if self.operator == "in":
                return f"({column} IN {marks}{f' OR {column} IS NULL' if None in value else ''})", values
            nothing = f"AND {column} IS NOT NULL" if None in value else f"OR {column} IS NULL"
            return f"({column} NOT IN {marks} {nothing})", values
        if self.operator in _SQL_ORDERS and self._field.is_ordered and value is not None:
            return f"{column} {_SQL_ORDERS[self.operator]} ?", [to_column(value)]
        raise _NotExact


def parse_terms(terms: Sequence[Term]) -> list[Condition]:
    """The conditions that these terms state; raises MalformedTerm."""
    return [Condition(term) for term in terms]
