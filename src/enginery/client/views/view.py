"""What all views share: flags, calls, waiting for them.

A view holds no connection and no tasks; it is a way of saying to its client where and how calls run. Views
are made by the client, which keeps one object per class, targets and flags.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

from enginery.client.calls import CallMaker, Flags, PreparedCall
from enginery.client.map_driver import MapFlags
from enginery.client.results import AsyncMapResult, AsyncResult
from enginery.client.results.async_result import Origin
from enginery.client.views.targets import Targets, as_list, describe
from enginery.ids import EngineId, TaskId, format_task_id

if TYPE_CHECKING:
    from enginery.client.client import Client

HISTORY_LIMIT = 100_000
_ORIGINS_KEPT = 512
_FLAGS = ("label", "priority", "retries")
_Result = TypeVar("_Result", bound=AsyncResult)


class View:
    """Run functions on engines. Use `client[...]` or `client.load_balanced_view()` to get one.

    `block` says whether calls wait for their values, `track` whether sends are tracked; `label`, `priority`
    and `retries` go with each task.
    """

    block: bool = False
    track: bool = False
    _default_targets: ClassVar[Any] = "all"

    def __init__(
        self, client: Client, targets: Targets | None, *, block: bool, track: bool = False, flags: Flags
    ) -> None:
        self._client = client
        self._targets = targets
        self.block = block
        self.track = track
        self._flags = flags
        self._maker: CallMaker | None = None
        self._origins: dict[tuple[str, bool], Origin] = {}
        self._history: deque[tuple[TaskId, int]] = deque(maxlen=HISTORY_LIMIT)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {describe(self._targets)}>"

    def __len__(self) -> int:
        return len(self._engine_ids())

    # ------------------------------------------------------------ attributes

    def __setattr__(self, name: str, value: Any) -> None:
        # A flag that is misspelt would silently do nothing.
        if not name.startswith("_") and not hasattr(type(self), name):
            raise AttributeError(f"a {type(self).__name__} has no attribute {name!r} that could be set")
        object.__setattr__(self, name, value)

    @property
    def client(self) -> Client:
        """The client that the view belongs to."""
        return self._client

    @property
    def targets(self) -> Any:
        """The engines: an id, a list, ``"all"``, or None for all of a balanced view. Not to be set."""
        return None if self._targets is None else as_list(self._targets)

    @targets.setter
    def targets(self, value: Any) -> None:
        if self._normalise(value) != self._targets:
            self._refuse_change("targets", value)

    @property
    def label(self) -> str:
        """A word that goes with each task, in its metadata and in the history."""
        return self._flags.label

    @label.setter
    def label(self, value: str | None) -> None:
        self._set_flag(label=value or "")

    @property
    def priority(self) -> int:
        """Tasks of higher priority start before waiting ones of lower; 0 by default."""
        return self._flags.priority

    @priority.setter
    def priority(self, value: int) -> None:
        self._set_flag(priority=check_whole("priority", value))

    @property
    def retries(self) -> int:
        """How often a task is run again after it failed or its engine died."""
        return self._flags.retries

    @retries.setter
    def retries(self, value: int) -> None:
        self._set_flag(retries=check_whole("retries", value))

    @property
    def history(self) -> list[str]:
        """The ids of the tasks sent through this view, oldest first; the last 100,000 calls."""
        return [
            format_task_id(TaskId(first + n)) for first, count in list(self._history) for n in range(count)
        ]

    @property
    def outstanding(self) -> set[str]:
        """The ids of those that have not ended."""
        return self._client.outstanding.intersection(self.history)

    # ------------------------------------------------------------ calls

    def apply(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call ``f(*args, **kwargs)``; its value if `block` is set, else an `AsyncResult`.

        Every keyword reaches `f`. Raises TypeError or PicklingError naming an argument that cannot be sent.
        """
        return self._finish(self._call(f, args, kwargs), None)

    def apply_async(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Call ``f(*args, **kwargs)`` and return an `AsyncResult` at once.

        >>> ar = view.apply_async(pow, 2, 10)                           # doctest: +SKIP
        """
        return self._call(f, args, kwargs)

    def apply_sync(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call ``f(*args, **kwargs)`` and return its value, one for each target if there are several."""
        return self._finish(self._call(f, args, kwargs), True)

    def map(
        self, f: Callable[..., Any], *sequences: Iterable[Any], block: bool | None = None, **flags: Any
    ) -> Any:
        """Call `f` for the items of the sequences; a list if `block` is set, else an `AsyncMapResult`.

        Flags: `return_exceptions`, `progress`, `label`; for balanced views also `chunksize`, `ordered`,
        `buffersize`. The map ends with the shortest sequence.
        """
        flags.pop("bound", None)
        return self._finish(self._map(f, sequences, **flags), block)

    def map_async(self, f: Callable[..., Any], *sequences: Iterable[Any], **flags: Any) -> AsyncMapResult:
        """Begin a `map` and return at once. Iterate over the result to have items as they come.

        >>> for item in view.map_async(abs, [-1, -2]): print(item)      # doctest: +SKIP
        """
        self._refuse_block("map_async", flags)
        return self._map(f, sequences, **flags)

    def map_sync(self, f: Callable[..., Any], *sequences: Iterable[Any], **flags: Any) -> list[Any]:
        """`map`, and wait for the list of values."""
        self._refuse_block("map_sync", flags)
        values: list[Any] = self._finish(self._map(f, sequences, **flags), True)
        return values

    # ------------------------------------------------------------ about calls

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait for tasks, by default all of this view; False if that took longer than `timeout` seconds."""
        return self._client.wait(self.history if jobs is None else jobs, timeout)

    def abort(self, jobs: Any = None) -> None:
        """Take tasks out of the queues that have not started, by default all of this view."""
        self._client.abort(sorted(self.outstanding) if jobs is None else jobs)

    # ------------------------------------------------------------ for the classes below

    def _normalise(self, targets: Any) -> Any:
        raise NotImplementedError

    def _engine_ids(self) -> tuple[EngineId, ...]:
        """The engines, looked up now; may be none."""
        raise NotImplementedError

    def _call(self, f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncResult:
        raise NotImplementedError

    def _map(
        self, f: Callable[..., Any], sequences: tuple[Iterable[Any], ...], **flags: Any
    ) -> AsyncMapResult:
        raise NotImplementedError

    def _calls(self) -> CallMaker:
        if self._maker is None:
            self._maker = self._make_maker(self._flags)
        return self._maker

    def _make_maker(self, flags: Flags) -> CallMaker:
        return CallMaker(self._client.session.functions, flags)

    def _origin(self, name: str, *, is_single: bool) -> Origin:
        origin = self._origins.get((name, is_single))
        if origin is None:
            if len(self._origins) >= _ORIGINS_KEPT:
                self._origins.clear()
            origin = Origin(name, is_single, self._flags.label, history=self._remember)
            self._origins[name, is_single] = origin
        return origin

    def _send(self, call: PreparedCall, engines: tuple[EngineId, ...], origin: Origin) -> AsyncResult:
        session = self._client.session
        result = AsyncResult(session, origin, engines=engines, tasks=len(engines) or 1)
        result.on_submitted(session.submit(call.options, call.payload, call.blobs, result.promises, engines))
        return result

    def _finish(self, result: AsyncResult, block: bool | None) -> Any:
        if not (self.block if block is None else block):
            return result
        self._wait_or_cancel(result)
        return result.get()

    def _wait_or_cancel(self, result: AsyncResult) -> None:
        """Wait to the end; Ctrl-C takes the call back."""
        try:
            result.wait()
        except KeyboardInterrupt:
            result.cancel()
            raise

    def _map_parts(
        self, f: Callable[..., Any], flags: dict[str, Any], *, allowed: frozenset[str]
    ) -> tuple[CallMaker, Origin, MapFlags]:
        """Sort the keywords of a map into what its three users need."""
        check_callable(f)
        unknown = set(flags) - allowed
        if unknown:
            raise TypeError(
                f"{type(self).__name__}.map has no keyword {min(unknown)!r}; it has {sorted(allowed)}"
            )
        label = flags.get("label")
        maker = self._calls() if label is None else self._make_maker(replace(self._flags, label=label))
        origin = Origin(
            getattr(f, "__name__", type(f).__name__),
            False,
            maker.flags.label,
            bool(flags.get("return_exceptions", False)),
            history=self._remember,
        )
        known = {name: flags[name] for name in MapFlags._fields if flags.get(name) is not None}
        return maker, origin, MapFlags(**known)

    def _remember(self, first: TaskId, count: int) -> None:
        self._history.append((first, count))
        self._client.remember(first, count)

    def _set_flag(self, **flag: Any) -> None:
        self._flags = replace(self._flags, **flag)
        self._maker = None
        self._origins.clear()

    def _refuse_change(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(
            f"{name} of {self!r} cannot be changed to {value!r}; ask the client for another view"
        )

    @staticmethod
    def _refuse_block(method: str, flags: dict[str, Any]) -> None:
        if "block" in flags:
            raise TypeError(f"{method} has no keyword 'block': its name says whether it waits")
        flags.pop("bound", None)


def check_callable(f: Any) -> None:
    if not callable(f):
        raise TypeError(f"a function is needed, not {f!r} ({type(f).__name__})")


def check_whole(name: str, value: Any) -> int:
    """Return the number; raises TypeError if it is none, ValueError for negative ones but as a priority."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if name != "priority" and value < 0:
        raise ValueError(f"{name} must not be negative, and is {value}")
    return value
