"""What a view is: where calls run, and with which flags.

A view holds no connection and no tasks; it is a way of saying to its client where and how calls run. Views
are made by the client, which keeps one object per class, targets and flags.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

from enginery.client.calls import CallMaker, PreparedCall
from enginery.client.contract import TaskSession
from enginery.client.displayed import Displayed
from enginery.client.flags import Flags, default_of, flag_names, read_flags
from enginery.client.results import AsyncResult
from enginery.client.results.description import Origin
from enginery.client.snapshots import ClusterSnapshot
from enginery.client.views.attributes import FlagAttribute
from enginery.client.views.targets import Targets, as_list, describe
from enginery.errors import NoEnginesRegistered
from enginery.ids import EngineId, TaskId, format_task_id

if TYPE_CHECKING:
    from enginery.client.client import Client

HISTORY_LIMIT = 100_000
_KEPT = 512  # origins and call makers that a view remembers
_FIXED = ("targets", "balanced")


class BaseView(Displayed):
    """Targets and flags, the history of what was sent with them, and the sending."""

    block = FlagAttribute[bool]("Whether calls wait for their values; False.")
    track = FlagAttribute[bool]("Whether sends are tracked; False.")
    label = FlagAttribute[str]("A word that goes with each task, into its metadata and the history.")
    priority = FlagAttribute[int]("Tasks of higher priority start before waiting ones of lower; 0.")
    retries = FlagAttribute[int]("How often a task is run again after it failed or its engine died; 0.")
    retry_on = FlagAttribute[tuple[str, ...] | None](
        "Exception classes after which `retries` counts: None is any, () only the death of an engine."
    )
    time_limit = FlagAttribute[float | None](
        "Seconds that a call, or an item of a map, may run before it ends with TimeLimitExceeded; None."
    )
    on_interrupt = FlagAttribute[str](
        'What Ctrl-C in a blocking call does to its tasks: "cancel", or "keep" and return the AsyncResult.'
    )
    writeable = FlagAttribute[bool](
        "Whether arrays that are sent or come back arrive as private ones that may be changed; False."
    )
    _is_balanced: ClassVar[bool]

    def __init__(self, client: Client, targets: Targets | None, flags: Flags) -> None:
        self._client = client
        self._targets = targets
        self._flags = flags
        self._makers: dict[Flags, CallMaker] = {}
        self._maker: CallMaker | None = None  # the one of the flags as they are
        self._origins: dict[tuple[CallMaker, str, bool], Origin] = {}
        self._history: deque[tuple[TaskId, int]] = deque(maxlen=HISTORY_LIMIT)
        self._remember = _recorder(self._history, client)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {describe(self._targets)}>"

    def _snapshot(self, *, may_wait: bool) -> ClusterSnapshot:
        targets = self._targets
        among = None
        if targets is not None and not isinstance(targets, str):
            among = targets if isinstance(targets, tuple) else (targets,)
        found = self._client._snapshot(may_wait=may_wait, among=among)
        names = flag_names(is_balanced=self._is_balanced)
        changed = [name for name in names if getattr(self._flags, name) != default_of(name)]
        return found._replace(
            kind=type(self).__name__,
            name=f"{'of any engine' if targets is None else describe(targets)} {found.name}".rstrip(),
            flags=tuple((name, repr(getattr(self, name))) for name in changed),
            uptime_s=None,
            clients=None,
        )

    def _live_session(self) -> TaskSession | None:
        return self._client._live_session()

    def _is_moving(self) -> bool:
        return self._client._is_moving()

    def __len__(self) -> int:
        return len(self._engine_ids())

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be sent: a view belongs to the connection of this process")

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
        """The engines: an id, a list, ``"all"``, or None for all of a balanced view. Not to be changed."""
        return None if self._targets is None else as_list(self._targets)

    @targets.setter
    def targets(self, value: Any) -> None:
        try:
            is_same = self._normalise(value) == self._targets
        except (TypeError, IndexError, NoEnginesRegistered):
            is_same = False
        if not is_same:
            self._refuse_change("targets", value)

    @property
    def balanced(self) -> bool:
        """Whether the controller chooses the engine of each call. Not to be changed."""
        return self._is_balanced

    @balanced.setter
    def balanced(self, value: bool) -> None:
        if value != self._is_balanced:
            self._refuse_change("balanced", value)

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

    # ------------------------------------------------------------ flags

    def set_flags(self, **flags: Any) -> Self:
        """Set flags for all further calls; returns the view. None sets a flag to its default.

        Raises KeyError for what is no flag of this view, TypeError or ValueError for what a flag cannot be,
        AttributeError for other targets; then nothing has changed.

        >>> view.set_flags(label="night run", retries=2)                # doctest: +SKIP
        """
        for name in _FIXED:
            if name in flags:
                setattr(self, name, flags.pop(name))
        read = self.read_flags(flags)
        self._replace_flags({name: read.get(name, default_of(name)) for name in flags})
        return self

    @contextmanager
    def temp_flags(self, **flags: Any) -> Iterator[Self]:
        """Set flags for the calls made in a `with` block.

        The view is shared by all threads, so calls that others make through it meanwhile have the flags too;
        ask the client for a view with flags of its own where that matters. Errors are those of `set_flags`.
        """
        before = self._flags
        self.set_flags(**flags)
        try:
            yield self
        finally:
            self._replace_flags({name: getattr(before, name) for name in flags if name not in _FIXED})

    @classmethod
    def read_flags(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The flags among a call's or a view's keywords, checked; errors are those of `set_flags`."""
        return read_flags(given, is_balanced=cls._is_balanced)

    def _replace_flags(self, changes: Mapping[str, Any]) -> None:
        self._flags = replace(self._flags, **changes)
        self._maker = None

    def _flags_for(self, given: Mapping[str, Any]) -> Flags:
        """The view's flags, but for those given with one call; None is the view's."""
        changes = self.read_flags(given)
        return replace(self._flags, **changes) if changes else self._flags

    # ------------------------------------------------------------ for the classes below

    def _normalise(self, targets: Any) -> Any:
        raise NotImplementedError

    def _engine_ids(self) -> tuple[EngineId, ...]:
        """The engines, looked up now; may be none."""
        raise NotImplementedError

    def _new_maker(self, flags: Flags) -> CallMaker:
        return CallMaker(self._client.session.functions, flags)

    def _calls(self, flags: Flags | None = None) -> CallMaker:
        """What makes calls with these flags, by default the view's; the client's label stands in for none."""
        label = self._client.current_label
        is_own = not label and (flags is None or flags is self._flags)
        if is_own and self._maker is not None:
            return self._maker
        flags = self._flags if flags is None else flags
        # How a call is waited for makes no difference to its tasks, so they can share a maker.
        flags = replace(flags, block=False, track=False, on_interrupt="cancel", label=flags.label or label)
        maker = self._makers.get(flags)
        if maker is None:
            if len(self._makers) >= _KEPT:
                self._makers.clear()
            maker = self._makers[flags] = self._new_maker(flags)
        if is_own:
            self._maker = maker
        return maker

    def _origin(self, maker: CallMaker, name: str, *, is_single: bool) -> Origin:
        key = maker, name, is_single
        origin = self._origins.get(key)
        if origin is None:
            if len(self._origins) >= _KEPT:
                self._origins.clear()
            origin = self._origins[key] = self._new_origin(maker.flags, name, is_single=is_single)
        return origin

    def _new_origin(
        self, flags: Flags, name: str, *, is_single: bool = False, return_exceptions: bool = False
    ) -> Origin:
        return Origin(
            name,
            is_single,
            flags.label,
            return_exceptions,
            history=self._remember,
            after=() if flags.after is None else flags.after.tasks,
            follow=() if flags.follow is None else flags.follow.tasks,
            writeable=flags.writeable,
        )

    def _send(self, call: PreparedCall, engines: tuple[EngineId, ...], origin: Origin) -> AsyncResult:
        session = self._client.session
        result = AsyncResult(session, origin, engines=engines, tasks=len(engines) or 1)
        result.on_submitted(session.submit(call.options, call.payload, call.blobs, result.promises, engines))
        return result

    def _send_each(
        self, calls: Sequence[PreparedCall], places: Sequence[tuple[EngineId, ...]], result: AsyncResult
    ) -> AsyncResult:
        """Send calls that are all made by now, one for each outcome of the result. Returns that."""
        session = self._client.session
        mark, first = session.mark(), None
        try:
            for promise, call, engines in zip(result.promises, calls, places, strict=True):
                task = session.submit(
                    call.options, call.payload, call.blobs, (promise,), engines, first=first
                )
                first = first or task
                promise.task = task
                self._remember(task, 1)
        except BaseException:
            session.cancel_since(mark)
            raise
        return result

    def _refuse_change(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(
            f"{name} of {self!r} cannot be changed to {value!r}; ask the client for another view"
        )


def _recorder(history: deque[tuple[TaskId, int]], client: Client) -> Callable[[TaskId, int], None]:
    """What notes the tasks that were sent. It goes with every result, and does not hold the view."""

    def remember(first: TaskId, count: int) -> None:
        history.append((first, count))
        client.remember(first, count)

    return remember
