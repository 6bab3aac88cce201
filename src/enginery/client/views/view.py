"""What all views share: calls, maps, decorators; waiting, asking and ordering about them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from enginery.client.calls import CallMaker
from enginery.client.contract import TaskSession
from enginery.client.flags import Flags, flag_names
from enginery.client.map_driver import MapFlags
from enginery.client.parts import cut, sliceable
from enginery.client.results import AsyncMapResult, AsyncResult
from enginery.client.results.description import Origin
from enginery.client.results.joined_result import JoinedResult
from enginery.client.shield import Shield
from enginery.client.views.base import BaseView
from enginery.ids import EngineId
from enginery.objects.functions import function_name
from enginery.objects.prepickled import PrePickled
from enginery.objects.reference import Reference
from enginery.objects.starred import Starred

if TYPE_CHECKING:
    from enginery.client.executor import ViewExecutor
    from enginery.client.functional import ParallelFunction, RemoteFunction
    from enginery.client.imap import LazyMapIterator


INTERRUPT_S = 2.0
"""How long Ctrl-C waits for the end of the tasks that it ends."""
_NO_FLAGS: Mapping[str, Any] = {}


class View(BaseView):
    """Run functions on engines. Use `client[...]` or `client.load_balanced_view()` to get one.

    Its flags go with each of its calls. They are keywords of the methods that make views, of `set_flags`,
    `temp_flags`, maps and the like, and attributes.
    """

    @property
    def results(self) -> Any:
        """The values of the client's tasks by task id."""
        return self._client.results

    @property
    def executor(self) -> ViewExecutor:
        """A new `concurrent.futures` executor over this view."""
        from enginery.client.executor import ViewExecutor

        return ViewExecutor(self)

    # ------------------------------------------------------------ calls

    def apply(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call ``f(*args, **kwargs)``; its value if `block` is set, else an `AsyncResult`.

        Every keyword reaches `f`. Raises TypeError or PicklingError naming an argument that cannot be sent.
        """
        return self._finish(lambda: self._call(f, args, kwargs), None)

    def apply_async(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Call ``f(*args, **kwargs)`` and return an `AsyncResult` at once.

        >>> ar = view.apply_async(pow, 2, 10)                           # doctest: +SKIP
        """
        return self._call(f, args, kwargs)

    def apply_sync(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call ``f(*args, **kwargs)`` and return its value, one for each target if there are several."""
        return self._finish(lambda: self._call(f, args, kwargs), True)

    def apply_with(
        self,
        f: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        block: bool | None = None,
        **flags: Any,
    ) -> Any:
        """`apply` with flags for this one call, which is why the arguments come in containers."""
        own = self._flags_for(flags)
        return self._finish(lambda: self._call(f, tuple(args), dict(kwargs or {}), own), block, flags)

    def apply_parts(
        self,
        f: Callable[..., Any],
        sequences: Sequence[Any],
        *,
        dist: str = "b",
        chunksize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        block: bool | None = None,
        **flags: Any,
    ) -> Any:
        """Call `f` once for each part of sequences of equal length; what the calls return is joined.

        This is what functions made with `parallel` do.
        """
        check_callable(f)
        places = self._places(len(sequences[0]), chunksize)
        maker = self._calls(self._flags_for(flags))
        columns = [cut(sequence, len(places), dist) for sequence in sequences]
        calls = [maker.call(f, parts, {}) for parts in zip(*columns, strict=True)]
        origin = self._new_origin(maker.flags, function_name(f), return_exceptions=return_exceptions)
        engines = [engine for place in places for engine in place]
        result = JoinedResult(
            self._client.session, origin, parts=len(places), dist=dist, ordered=ordered, engines=engines
        )
        return self._finish(lambda: self._send_each(calls, places, result), block, flags)

    def map(
        self, f: Callable[..., Any], *sequences: Iterable[Any], block: bool | None = None, **flags: Any
    ) -> Any:
        """Call `f` for the items of the sequences; a list if `block` is set, else an `AsyncMapResult`.

        Keywords: `return_exceptions`, `progress` and the view's flags; for balanced views also `chunksize`,
        `ordered`, `buffersize`. The map ends with the shortest sequence.
        """
        flags.pop("bound", None)
        return self._finish(lambda: self._map(f, sequences, flags), block, flags)

    def map_async(self, f: Callable[..., Any], *sequences: Iterable[Any], **flags: Any) -> AsyncMapResult:
        """Begin a `map` and return at once. Iterate over the result to have items as they come.

        >>> for item in view.map_async(abs, [-1, -2]): print(item)      # doctest: +SKIP
        """
        self._refuse_block("map_async", flags)
        return self._map(f, sequences, flags)

    def map_sync(self, f: Callable[..., Any], *sequences: Iterable[Any], **flags: Any) -> list[Any]:
        """`map`, and wait for the list of values."""
        self._refuse_block("map_sync", flags)
        values: list[Any] = self._finish(lambda: self._map(f, sequences, flags), True, flags)
        return values

    def starmap(
        self,
        f: Callable[..., Any],
        rows: Iterable[Iterable[Any]],
        *,
        block: bool | None = None,
        **flags: Any,
    ) -> Any:
        """Call ``f(*row)`` for each row; keywords and value are those of `map`.

        >>> view.starmap(pow, [(2, 5), (3, 2)]).get()                   # doctest: +SKIP
        [32, 9]
        """
        check_callable(f)
        return self.map(Starred(f), rows, block=block, **flags)

    def imap(
        self,
        f: Callable[..., Any],
        *sequences: Iterable[Any],
        ordered: bool = True,
        max_outstanding: int | str = "auto",
        return_exceptions: bool = False,
    ) -> LazyMapIterator:
        """Iterate over ``f(*items)``, sending calls as results are taken; the sequences may be endless.

        At most `max_outstanding` calls are under way, ``"auto"`` being the number of engines and 0 as many as
        there are. The iterator's `cancel` ends it.
        """
        from enginery.client.imap import imap

        check_callable(f)
        return imap(
            self,
            f,
            *sequences,
            ordered=ordered,
            max_outstanding=max_outstanding,
            return_exceptions=return_exceptions,
        )

    def reduce(self, f: Callable[[Any, Any], Any], sequence: Iterable[Any], *initial: Any) -> Any:
        """Reduce a sequence to one value on the engines, as `functools.reduce` does, and wait for it.

        Neighbours are combined in parallel, so `f` must be associative; the order is kept, so it need not be
        commutative. Raises TypeError for an empty sequence without an initial value.

        >>> view.reduce(operator.add, range(101), 0)                    # doctest: +SKIP
        5050
        """
        check_callable(f)
        if len(initial) > 1:
            raise TypeError(f"reduce takes a function, a sequence and one initial value, not {len(initial)}")
        items = sliceable(sequence)
        if not len(items):
            if not initial:
                raise TypeError("reduce of an empty sequence needs an initial value")
            return initial[0]
        parts = [part for part in cut(items, self._parts_of_reduction()) if len(part)]
        if initial:
            parts[0] = [initial[0], *parts[0]]
        fold = functools.partial(functools.reduce, f)
        values = self.map_sync(fold, parts, on_interrupt="cancel")
        return values[0] if len(values) == 1 else self.map_sync(fold, [values], on_interrupt="cancel")[0]

    def remote(
        self, block: bool | None = None, **flags: Any
    ) -> Callable[[Callable[..., Any]], RemoteFunction]:
        """Decorate a function so that calling it is `apply` on this view.

        >>> @view.remote(block=True)                                    # doctest: +SKIP
        ... def getpid(): return os.getpid()
        """
        from enginery.client.functional import remote

        return remote(self, block, **flags)

    def parallel(
        self, dist: str = "b", block: bool | None = None, **flags: Any
    ) -> Callable[[Callable[..., Any]], ParallelFunction]:
        """Decorate a function so that calling it cuts its arguments into parts, one call for each."""
        from enginery.client.functional import parallel

        return parallel(self, dist, block, **flags)

    # ------------------------------------------------------------ about calls

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait for tasks, by default all of this view; False if that took longer than `timeout` seconds.

        `jobs` is an AsyncResult, any Future, a task id, an index into `history`, or a collection of these.
        """
        return self._client.wait(self.history if jobs is None else self._by_id(jobs), timeout)

    def spin(self) -> None:
        """Do nothing: what comes in is taken in without it."""

    def abort(self, jobs: Any = None, targets: Any = None, block: bool | None = None) -> Any:
        """Take tasks out of the queues that have not started, by default all of this view.

        `jobs` as for `wait`; with `targets`, only the tasks on these engines.
        """
        jobs = self._client.with_maps(sorted(self.outstanding)) if jobs is None else self._by_id(jobs)
        return self._client.abort(jobs, targets=targets, block=block)

    def get_result(
        self, indices_or_msg_ids: Any = None, block: bool | None = None, owner: bool = False
    ) -> Any:
        """Return the results of tasks named by ids or by indices into `history`; by default the last one."""
        jobs = self._by_id(-1 if indices_or_msg_ids is None else indices_or_msg_ids)
        return self._client.get_result(jobs, block=self.block if block is None else block, owner=owner)

    def queue_status(self, targets: Any = None, verbose: bool = False) -> dict[Any, Any]:
        """Return how much is queued and done on each engine, by default those of the view."""
        found: dict[Any, Any] = self._client.queue_status(self._or_own(targets), verbose)
        return found

    def purge_results(self, jobs: Any = (), targets: Any = ()) -> None:
        """Forget results, here and at the controller: those of tasks, or of all tasks of engines."""
        self._client.purge_results(jobs=self._by_id(jobs) if jobs else jobs, targets=targets)

    def shutdown(
        self, targets: Any = None, restart: bool = False, hub: bool = False, block: bool | None = None
    ) -> Any:
        """End engines, by default those of the view; with `hub=True` the whole cluster."""
        return self._client.shutdown(self._or_own(targets), restart=restart, hub=hub, block=block)

    # ------------------------------------------------------------ for the classes below

    def _call(
        self,
        f: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        flags: Flags | None = None,
    ) -> AsyncResult:
        raise NotImplementedError

    def _map(
        self, f: Callable[..., Any], sequences: tuple[Iterable[Any], ...], flags: dict[str, Any]
    ) -> AsyncMapResult:
        raise NotImplementedError

    def _parts_of_reduction(self) -> int:
        raise NotImplementedError

    def _places(self, items: int, chunksize: int | None) -> list[tuple[EngineId, ...]]:
        """Where the parts of a sequence of so many items go: as many as there are parts."""
        raise NotImplementedError

    def _finish(
        self,
        begin: Callable[[], AsyncResult],
        block: bool | None,
        flags: Mapping[str, Any] = _NO_FLAGS,
    ) -> Any:
        """Make a call with these flags; returns its value, or its result unless it blocks.

        Ctrl-C ends the call's own tasks, or keeps them and has the result returned.
        """
        if not (self._flags.block if block is None else block):
            return begin()
        keeps = (flags.get("on_interrupt") or self._flags.on_interrupt) == "keep"
        result = call_or_cancel(self._client.session, begin, AsyncResult.wait, keeps=keeps)
        return result if keeps and not result.done() else result.get()

    def _map_parts(
        self, f: Callable[..., Any], keywords: dict[str, Any], *, allowed: frozenset[str]
    ) -> tuple[CallMaker, Origin, MapFlags]:
        """Sort the keywords of a map into what its three users need."""
        check_callable(f)
        flags = {
            name: keywords[name] for name in flag_names(is_balanced=self._is_balanced) if name in keywords
        }
        unknown = set(keywords).difference(flags, allowed)
        if unknown:
            raise TypeError(
                f"{type(self).__name__}.map has no keyword {min(unknown)!r}; it has {sorted(allowed)} and "
                "the view's flags"
            )
        maker = self._calls(self._flags_for(flags))
        return_exceptions = bool(keywords.get("return_exceptions", False))
        origin = self._new_origin(maker.flags, function_name(f), return_exceptions=return_exceptions)
        known = {name: keywords[name] for name in MapFlags._fields if keywords.get(name) is not None}
        return maker, origin, MapFlags(**known)

    def _by_id(self, jobs: Any) -> Any:
        """What names tasks, with ids in the places of indices into the view's history."""
        if isinstance(jobs, int) and not isinstance(jobs, bool):
            history = self.history
            try:
                return history[jobs]
            except IndexError:
                raise IndexError(
                    f"there is no task {jobs} in the history of {self!r}, which has {len(history)} tasks"
                ) from None
        if isinstance(jobs, slice):
            return self.history[jobs]
        if isinstance(jobs, (list, tuple, set, frozenset)):
            return [self._by_id(job) for job in jobs]
        return jobs

    def _or_own(self, targets: Any) -> Any:
        if targets is not None:
            return targets
        return "all" if self._targets is None else self.targets

    @staticmethod
    def _refuse_block(method: str, flags: dict[str, Any]) -> None:
        if "block" in flags:
            raise TypeError(f"{method} has no keyword 'block': its name says whether it waits")
        flags.pop("bound", None)


def call_or_cancel(
    session: TaskSession,
    begin: Callable[[], AsyncResult],
    wait: Callable[[AsyncResult], object],
    *,
    keeps: bool,
) -> AsyncResult:
    """Make a call and wait for it; returns its result, which is not done if Ctrl-C came and it `keeps`.

    Else the call's tasks are ended, also if it was interrupted while it still submitted them, and
    KeyboardInterrupt is raised when they have ended; a second Ctrl-C does not wait for that, and nobody does
    for longer than `INTERRUPT_S`.
    """
    mark, result = session.mark(), None
    try:
        with Shield() if keeps else nullcontext():  # what is to be kept has to be there first
            result = begin()
        wait(result)
    except KeyboardInterrupt:
        if result is not None and keeps:
            return result
        own = set(session.cancel_since(mark))
        if result is not None:
            result.cancel()
            result.wait(INTERRUPT_S)
        session.wait_until(lambda: session.outstanding().isdisjoint(own), INTERRUPT_S)
        raise
    return result


def check_callable(f: Any) -> None:
    if not callable(f) and not isinstance(f, (Reference, PrePickled)):
        raise TypeError(f"a function is needed, not {f!r} ({type(f).__name__})")
