"""Run one task's payload in the namespace. No socket, no queue, no clock.

What a payload holds depends on the kind of task; the client's side of it is in `client/calls.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from enginery.engine.namespace import Namespace, compile_source, evaluate
from enginery.ids import BlobId, EngineId
from enginery.objects.companions import CompanionTable
from enginery.objects.failures import pack_failure
from enginery.objects.functions import BuiltFunction, build
from enginery.objects.packing import Packed, pack, unpack_call, unpack_with_companions
from enginery.protocol.codec import Buffer
from enginery.protocol.messages import Kind, Status

FUNCTIONS_KEPT = 1024
Failure = tuple[Any, ...]
"""Of one row of a map: (row, inline, *buffers)."""


class Outcome(NamedTuple):
    """What came of a task."""

    status: Status
    packed: Packed


class StopRunning(BaseException):
    """Raised in the main thread to end the engine in the middle of user code; never reaches a client."""


class Runner:
    """Runs tasks one after the other, in the thread that calls it."""

    def __init__(self, namespace: Namespace, *, engine: EngineId, key: str) -> None:
        self._namespace = namespace
        self._engine = engine
        self._key = key
        self._companions = CompanionTable(namespace)
        self._functions: OrderedDict[BlobId, BuiltFunction] = OrderedDict()
        self._kinds: dict[Kind, Callable[[BlobId, Buffer | None, bytes, Sequence[Buffer]], Outcome]] = {
            Kind.CALL: self._call,
            Kind.MAP: self._map,
            Kind.EXECUTE: self._execute,
            Kind.PUSH: self._push,
            Kind.PULL: self._pull,
        }

    def __repr__(self) -> str:
        return f"<Runner of engine {self._engine}, {len(self._functions)} functions>"

    def run(
        self,
        kind: Kind,
        function: BlobId,
        function_data: Buffer | None,
        payload: bytes,
        buffers: Sequence[Buffer],
    ) -> Outcome:
        """Run a task. What user code raises, `SystemExit` too, is its outcome; only `StopRunning` escapes."""
        try:
            return self._kinds[kind](function, function_data, payload, buffers)
        except StopRunning:
            raise
        except BaseException as error:  # noqa: BLE001 - a task may raise anything and ends no engine
            return Outcome(Status.ERROR, self.failure(error, kind))

    def has_function(self, function: BlobId) -> bool:
        return function in self._functions

    # ------------------------------------------------------------ kinds

    def _call(
        self, function: BlobId, data: Buffer | None, payload: bytes, buffers: Sequence[Buffer]
    ) -> Outcome:
        built = self._function(function, data)
        args, kwargs, companions = unpack_call(payload, buffers, namespace=self._namespace)
        if built.companions or companions:
            with self._companions.active(built.companions, companions):
                value = built.function(*args, **kwargs)
        else:
            value = built.function(*args, **kwargs)
        return Outcome(Status.OK, _pack_result(value))

    def _map(
        self, function: BlobId, data: Buffer | None, payload: bytes, buffers: Sequence[Buffer]
    ) -> Outcome:
        built = self._function(function, data)
        columns, companions = unpack_with_companions(payload, buffers, namespace=self._namespace)
        with self._companions.active(built.companions, companions):
            values, failures = self._map_rows(built.function, columns)
        try:
            packed = _pack_result((values, failures))
        except Exception:  # noqa: BLE001 - one item cannot be pickled: it fails, its neighbours do not
            self._fail_unpicklable(values, failures)
            packed = _pack_result((values, failures))
        return Outcome(Status.ERROR if failures else Status.OK, packed)

    def _map_rows(
        self, function: Callable[..., Any], columns: tuple[list[Any], ...]
    ) -> tuple[list[Any], list[Failure]]:
        """Call the function for each row. A row that fails has None for its value and stops no other."""
        values: list[Any] = []
        failures: list[Failure] = []
        rows = zip(*columns, strict=True)
        while True:
            # The fast part has no try around each row: it is entered again after the row that failed.
            try:
                if len(columns) == 1:
                    for (item,) in rows:
                        values.append(function(item))
                else:
                    for row in rows:
                        values.append(function(*row))
                return values, failures
            except StopRunning:
                raise
            except BaseException as error:  # noqa: BLE001 - whatever a row raises is that row's failure
                failures.append(_in_row(len(values), self.failure(error, Kind.MAP)))
                values.append(None)

    def _execute(
        self, function: BlobId, data: Buffer | None, payload: bytes, buffers: Sequence[Buffer]
    ) -> Outcome:
        (text, filename), _ = unpack_with_companions(payload, buffers)
        exec(compile_source(text, filename), self._namespace)
        return Outcome(Status.OK, pack(None))

    def _push(
        self, function: BlobId, data: Buffer | None, payload: bytes, buffers: Sequence[Buffer]
    ) -> Outcome:
        values, companions = unpack_with_companions(payload, buffers, namespace=self._namespace)
        self._companions.keep(companions)
        for name, value in values.items():
            if name.isidentifier():
                self._namespace[name] = value
            else:  # view["a.b"] = value, view["a[0]"] = value
                exec(f"{name} = __pushed", self._namespace, {"__pushed": value})
        return Outcome(Status.OK, pack(None))

    def _pull(
        self, function: BlobId, data: Buffer | None, payload: bytes, buffers: Sequence[Buffer]
    ) -> Outcome:
        (names, single), _ = unpack_with_companions(payload, buffers)
        values = [evaluate(name, self._namespace) for name in names]
        return Outcome(Status.OK, _pack_result(values[0] if single else values))

    # ------------------------------------------------------------ inside

    def _function(self, function: BlobId, data: Buffer | None) -> BuiltFunction:
        built = self._functions.get(function)
        if built is None:
            if data is None:
                raise LookupError("the function of this task is not on the engine")
            built = self._functions[function] = build(data, self._namespace)
            if len(self._functions) > FUNCTIONS_KEPT:
                self._functions.popitem(last=False)
        return built

    def _fail_unpicklable(self, values: list[Any], failures: list[Failure]) -> None:
        for index, value in enumerate(values):
            try:
                _pack_result(value)
            except Exception as error:  # noqa: BLE001 - whatever pickling raises is that item's failure
                values[index] = None
                failures.append(_in_row(index, self.failure(error, Kind.MAP)))
        failures.sort(key=lambda failure: failure[0])

    def failure(self, error: BaseException, kind: Kind) -> Packed:
        """An exception of this engine, made portable."""
        return pack_failure(error, engine=self._engine, engine_uuid=self._key, method=kind.name.lower())


def _pack_result(value: Any) -> Packed:
    return pack(value, with_companions=False)


def _in_row(row: int, failure: Packed) -> Failure:
    return (row, failure.inline, *map(bytes, failure.buffers))
