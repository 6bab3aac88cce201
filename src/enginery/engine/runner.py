"""Run one task's payload in the namespace. No socket, no queue, no clock but to measure its own steps.

What a payload holds depends on the kind of task; the client's side of it is in `client/calls.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from enginery.engine.execution import Execution
from enginery.engine.function_table import FunctionTable
from enginery.engine.interrupts import Interrupts, StopRunning
from enginery.engine.namespace import Namespace, clear, evaluate
from enginery.engine.outcome import Outcome, RowFailures, failed, is_refusal
from enginery.engine.output import Show
from enginery.engine.user_code import Skipped, call, call_for_rows
from enginery.errors import TaskCancelled
from enginery.ids import BlobId, EngineId
from enginery.objects.arrays import read_only_note, writeable_arrivals
from enginery.objects.companions import Companions, CompanionTable
from enginery.objects.failures import pack_failure
from enginery.objects.functions import BuiltFunction
from enginery.objects.packing import Packed, pack, unpack_call, unpack_to_stay, unpack_with_companions
from enginery.protocol.codec import Buffer
from enginery.protocol.messages import EngineCall, Kind, RunOptions, Status
from enginery.transport import clock

if TYPE_CHECKING:
    from enginery.engine.shell import EngineShell

WatchRows = Callable[[int, Sized, RowFailures], None]
"""Told of a map that begins: how many items it has, and what grows as they end, and as they fail."""
CELLS_KEPT = 100
"""Cells whose failure is remembered, so that what they have queued does not run."""
PORTION_S = 0.0005
"""Rows of a map with a limit that take no longer together have no time of their own."""
MOST_ROWS = 256


class Work(NamedTuple):
    """What the runner needs for a task, kept alive until it has run."""

    options: RunOptions
    call: EngineCall
    function: Buffer | None
    buffers: Sequence[Buffer]


class Runner:
    """Runs tasks one after the other, in the thread that calls it."""

    def __init__(
        self,
        namespace: Namespace,
        *,
        engine: EngineId,
        key: str,
        show: Show | None = None,
        interrupts: Interrupts | None = None,
        watch_rows: WatchRows | None = None,
    ) -> None:
        self._namespace = namespace
        self._into_namespace = {"namespace": namespace}
        self._engine = engine
        self._key = key
        self._interrupts = interrupts or Interrupts()
        self._companions = CompanionTable(namespace)
        self._borrowed: tuple[Companions, ...] = ()  # what the running task has brought along
        self._execution = Execution(namespace, show=show)
        self._packed_never_run: Packed | None = None
        self._watch_rows: WatchRows = watch_rows or (lambda items, values, failed: None)
        self._failed_cells: deque[str] = deque(maxlen=CELLS_KEPT)
        self._writeable = False  # of what the running task is sent
        self._began_at = 0.0
        self.unpickle_s = 0.0  # of the last task: before the user's function was called,
        self.pickle_s = 0.0  # and after it had returned
        self._functions = FunctionTable(namespace)
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
        *,
        writeable: bool = False,
    ) -> Outcome:
        """Run a task; arrays that it is sent may be changed by it if they are to be `writeable`.

        What user code raises, `SystemExit` too, is its outcome; only `StopRunning` escapes."""
        self._writeable = writeable
        self._began_at = monotonic()
        self.unpickle_s = self.pickle_s = 0.0
        try:
            return self._kinds[kind](function, function_data, payload, buffers)
        except StopRunning:
            raise
        except BaseException as error:  # noqa: BLE001 - a task may raise anything and ends no engine
            return self.failed(error, kind)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Run another task while the present one waits."""
        before = self._borrowed, self._writeable, self._began_at, self.unpickle_s
        try:
            yield
        finally:
            self._borrowed, self._writeable, self._began_at, self.unpickle_s = before

    def take_left_over(self) -> bool:
        """Whether what was run since this was asked last has left coroutines running."""
        return self._execution.take_left_over()

    def function_data(self, function: BlobId) -> Buffer | None:
        """The blob of a function that has been built here; None if it is not known (any more)."""
        return self._functions.data(function)

    @property
    def function_bytes(self) -> int:
        """Of the functions that are here. May be asked by any thread."""
        return self._functions.total_bytes

    def forget_functions(self) -> None:
        """Let go of all functions; those that further tasks name have to come again."""
        self._functions.clear()

    def clear(self) -> list[Any]:
        """Empty the namespace, from any thread; returns the values, for the caller to drop.

        Code that has come along with the running task is no part of the namespace, and stays until the end.
        """
        namespace = self._namespace
        borrowed = [pair for companions in self._borrowed for pair in list(companions.values.items())]
        self._companions = CompanionTable(namespace)  # what is kept belongs to functions that go now
        removed = clear(namespace, spare={name for name, value in borrowed if namespace.get(name) is value})
        return removed + self._execution.forget()

    def execute(self, text: str, filename: str) -> None:
        """Execute a text of nobody's task; raises what it raises."""
        self._execution.run(text, filename, silent=True)

    def shell(self) -> EngineShell:
        """IPython's shell, started if need be. Raises ModuleNotFoundError if IPython is not installed."""
        return self._execution.shell()

    def offer_shell(self) -> None:
        """Have `get_ipython` and `display` at hand for tasks of all kinds in this process."""
        self._execution.offer_shell()

    def close(self) -> None:
        """Let go of what belongs to the process: the shell, the event loop."""
        self._execution.close()

    # ------------------------------------------------------------ kinds

    def _call(
        self, function: BlobId, data: Buffer | None, payload: bytes, buffers: Sequence[Buffer]
    ) -> Outcome:
        built = self._function(function, data)
        args, kwargs, companions = self._arrive(unpack_call, payload, buffers)
        self.unpickle_s = monotonic() - self._began_at
        if built.companions or companions:
            with self._borrow(built.companions, companions):
                value = call(built.function, args, kwargs)
        else:
            value = call(built.function, args, kwargs)
        returned_at = monotonic()
        packed = call(pack, (value,))
        self.pickle_s = monotonic() - returned_at
        return Outcome(Status.OK, packed)

    def _map(
        self, function: BlobId, data: Buffer | None, payload: bytes, buffers: Sequence[Buffer]
    ) -> Outcome:
        built = self._function(function, data)
        columns, companions = self._arrive(unpack_with_companions, payload, buffers)
        self.unpickle_s = monotonic() - self._began_at
        values: list[Any] = []
        failures = RowFailures()
        self._watch_rows(len(columns[0]), values, failures)
        with self._borrow(built.companions, companions):
            self._map_rows(built.function, columns, values, failures)
        returned_at = monotonic()
        try:
            packed = call(pack, ((values, failures.rows()),))
        except Exception:  # noqa: BLE001 - one item cannot be pickled: it fails, its neighbours do not
            self._fail_unpicklable(values, failures)
            packed = call(pack, ((values, failures.rows()),))
        self.pickle_s = monotonic() - returned_at
        return failures.outcome(packed)

    def _map_rows(
        self,
        function: Callable[..., Any],
        columns: tuple[list[Any], ...],
        values: list[Any],
        failures: RowFailures,
    ) -> None:
        """Call the function for each row. A row that fails has None for its value and stops no other.

        A row that this engine is not fit for stops all: another engine is to take the whole. Where each row
        has a limit, rows run in portions that take no time to speak of, or one by one.
        """
        total = len(columns[0])
        rows: Iterator[tuple[Any, ...]] = zip(*columns, strict=True)
        is_single = len(columns) == 1
        skips = self._interrupts.begin_items(values)
        portion = 1 if self._interrupts.is_limited else total
        while len(values) < total:
            began_at, before = self._interrupts.begin_item(), len(values)
            # The fast part has no try around each row: it is entered again after the row that failed.
            try:
                call_for_rows(function, islice(rows, portion), values, skips, is_single=is_single)
                if len(values) == before:
                    break  # a sequence of the user's own that has fewer items than it says
            except StopRunning:
                raise
            except Skipped:
                failures.add_cancelled(len(values), self._never_run())
                values.append(None)
            except BaseException as error:
                if is_refusal(error):
                    raise
                self._fail_row(error, values, total, failures)
            if self._interrupts.is_limited:
                is_fast = clock.now() - began_at < PORTION_S
                portion = min(2 * portion, MOST_ROWS) if is_fast else 1

    def _fail_row(self, error: BaseException, values: list[Any], total: int, failures: RowFailures) -> None:
        """The row behind the values has failed; all rows behind it too, if the whole is to end."""
        row, behind = len(values), 0
        found = self._interrupts.verdict(error)
        if found is not None:
            error = found.told
            behind = total - row - 1 if found.ends_all else 0
        failure = self._pack_failure(error, Kind.MAP)
        if found is not None and found.status is Status.CANCELLED:
            failures.add_cancelled(row, failure, behind=behind)
        else:
            failures.add(row, error, failure, behind=behind)
        values += [None] * (1 + behind)

    def _never_run(self) -> Packed:
        """The failure of an item that was cancelled in time."""
        if self._packed_never_run is None:
            error = TaskCancelled("the item was cancelled before it started")
            self._packed_never_run = self._pack_failure(error, Kind.MAP)
        return self._packed_never_run

    def _execute(
        self, function: BlobId, data: Buffer | None, payload: bytes, buffers: Sequence[Buffer]
    ) -> Outcome:
        (text, filename, *rest), _ = unpack_with_companions(payload, buffers)
        silent = rest[0] if rest else True
        cell = rest[1] if len(rest) > 1 else ""
        if cell and cell in self._failed_cells:
            return Outcome(Status.ABORTED, Packed(b""))
        try:
            reply = self._execution.run(text, filename, silent=silent)
            return Outcome(Status.OK, call(pack, (reply,)))
        except BaseException as error:
            if cell and not silent:
                self._failed_cells.append(cell)
            if isinstance(error, SyntaxError) and error.filename == filename:
                error.__traceback__ = None  # nothing of the text has run: these are all frames of ours
                return self.failed(error, Kind.EXECUTE)
            raise

    def _push(
        self, function: BlobId, data: Buffer | None, payload: bytes, buffers: Sequence[Buffer]
    ) -> Outcome:
        values, companions = self._arrive(unpack_to_stay, payload, buffers)
        self._companions.keep(companions)
        for name, value in values.items():
            if name.isidentifier():
                self._namespace[name] = value
            else:  # view["a.b"] = value, view["a[0]"] = value
                call(exec, (f"{name} = __pushed", self._namespace, {"__pushed": value}))
        return Outcome(Status.OK, pack(None))

    def _pull(
        self, function: BlobId, data: Buffer | None, payload: bytes, buffers: Sequence[Buffer]
    ) -> Outcome:
        (names, single), _ = unpack_with_companions(payload, buffers)
        values = [call(evaluate, (name, self._namespace)) for name in names]
        return Outcome(Status.OK, call(pack, (values[0] if single else values,)))

    # ------------------------------------------------------------ inside

    def _arrive(self, unpack: Callable[..., Any], payload: bytes, buffers: Sequence[Buffer]) -> Any:
        if not self._writeable:
            return call(unpack, (payload, buffers), self._into_namespace)
        with writeable_arrivals():
            return call(unpack, (payload, buffers), self._into_namespace)

    def _borrow(self, *companions: Companions) -> AbstractContextManager[None]:
        self._borrowed = companions
        return self._companions.active(*companions)

    def _function(self, function: BlobId, data: Buffer | None) -> BuiltFunction:
        if not self._writeable:
            return self._functions.get(function, data, writeable=False)
        with writeable_arrivals():
            return self._functions.get(function, data, writeable=True)

    def _fail_unpicklable(self, values: list[Any], failures: RowFailures) -> None:
        for row, value in enumerate(values):
            try:
                call(pack, (value,))
            except Exception as error:  # noqa: BLE001 - whatever pickling raises is that item's failure
                values[row] = None
                failures.add(row, error, self._pack_failure(error, Kind.MAP))

    def failed(self, error: BaseException, kind: Kind) -> Outcome:
        """A task that an exception has ended."""
        found = self._interrupts.verdict(error)
        if found is None:
            return failed(error, self._pack_failure(error, kind))
        return failed(found.told, self._pack_failure(found.told, kind), found.status)

    def _pack_failure(self, error: BaseException, kind: Kind) -> Packed:
        note = read_only_note(error)
        if note and not self._writeable:
            error.add_note(note)
        return pack_failure(error, engine=self._engine, engine_uuid=self._key, method=kind.name.lower())
