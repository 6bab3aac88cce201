"""What a result tells of itself beside its values: who ran what, when, and what was written meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from enginery.client.contract import TaskSession
from enginery.client.displayed import Displayed
from enginery.client.glance import Glance
from enginery.client.results.bars import ProgressBar
from enginery.client.results.display import GROUPINGS, OutputStream, show_outputs
from enginery.client.results.execute_reply import ExecuteReply
from enginery.client.results.metadata import METADATA_KEYS, Metadata, describe_end, describe_task
from enginery.client.results.outcome import Outcome
from enginery.client.results.snapshot import snapshot_of
from enginery.client.results.tally import Tally
from enginery.client.results.verdicts import combine
from enginery.client.snapshots import LINES_SHOWN, ResultSnapshot, Standing, TaskLine
from enginery.ids import NO_ENGINE, TaskId, format_task_id
from enginery.protocol.messages import Report

_NOTHING = Tally()
REPLAY_S = 0.2
"""How long output is held, so that what several engines write at about the same time can be folded."""
LATE_OUTPUT_S = 5.0
"""How long nothing of a task's output may come after its result; what is missing then was lost on the way."""


class Origin(NamedTuple):
    """What a result can tell about its call. One object may serve many calls."""

    name: str = ""
    is_single: bool = True
    label: str = ""
    return_exceptions: bool = False
    source: str | None = None  # of `execute`
    history: Callable[[TaskId, int], None] | None = None
    """Told of each submission: its first task id and how many follow it."""
    after: Sequence[TaskId] = ()
    follow: Sequence[TaskId] = ()
    writeable: bool = False


class Described(Displayed):
    """The part of a result that describes its tasks."""

    _session: TaskSession
    _origin: Origin
    _outcomes: list[Any]
    _metadata: dict[Outcome, Metadata]
    _submitted: float
    _finished: float = 0.0
    _stream: OutputStream | None = None
    _unit = "tasks"
    _state_lock: Any
    _tally: Tally | None
    _open: int
    _own_glance: Glance | None = None

    def done(self) -> bool:
        """Whether all of it has ended."""
        raise NotImplementedError

    # ------------------------------------------------------------ metadata

    @property
    def msg_ids(self) -> list[str]:
        """The ids of its tasks, as text, in the order of targets."""
        return [format_task_id(task) for task in self.task_ids]

    @property
    def task_ids(self) -> list[TaskId]:
        """The ids of its tasks, as numbers."""
        return [outcome.task for outcome in list(self._outcomes) if outcome.task is not None]

    @property
    def metadata(self) -> Any:
        """What is known of its tasks: a `Metadata`, or a list of them; also before they have ended."""
        return self._alone([self._describe(outcome) for outcome in list(self._outcomes)])

    def __getattr__(self, name: str) -> Any:
        if name in METADATA_KEYS:
            return self._column(name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def stdout(self) -> Any:
        """What its tasks have written so far: one text, or a list."""
        return self._column("stdout")

    @property
    def stderr(self) -> Any:
        """What its tasks have written to the error stream so far: one text, or a list."""
        return self._column("stderr")

    @property
    def outputs(self) -> Any:
        """What its tasks display: `data` and `metadata` by MIME type, in dictionaries; a list, or several."""
        return self._column("outputs")

    @property
    def data(self) -> Any:
        """What its tasks have published so far with `publish_data`: a dictionary, or a list of them."""
        return self._column("data")

    def _column(self, key: str) -> Any:
        outcomes: list[Outcome] = list(self._outcomes)
        if key in ("stdout", "stderr"):
            return self._alone([outcome.text(key) for outcome in outcomes])
        if key == "data":
            return self._alone([outcome.data() for outcome in outcomes])
        if key == "outputs":
            return self._alone([outcome.outputs() for outcome in outcomes])
        if key == "report":
            return self._alone([outcome.report for outcome in outcomes])
        return self._alone([self._describe(outcome)[key] for outcome in outcomes])

    def _alone(self, found: list[Any]) -> Any:
        return found[0] if self._origin.is_single else found

    def _describe(self, outcome: Outcome) -> Metadata:
        metadata = self._metadata.get(outcome)
        if metadata is None:
            metadata = describe_task(
                outcome.task,
                submitted=self._submitted,
                label=self._origin.label,
                source=self._origin.source,
                engine=None if outcome.target is None else int(outcome.target),
                after=self._origin.after,
                follow=self._origin.follow,
            )
            metadata = self._metadata.setdefault(outcome, metadata)
        metadata.update(stdout=outcome.text("stdout"), stderr=outcome.text("stderr"))
        metadata.update(outputs=outcome.outputs(), data=outcome.data(), report=outcome.report)
        if metadata["msg_id"] is None and outcome.task is not None:
            metadata["msg_id"] = format_task_id(outcome.task)
        if metadata["received"] is None and outcome.result is not None and outcome.task is not None:
            self._describe_end(metadata, outcome)
        return metadata

    def _describe_end(self, metadata: Metadata, outcome: Outcome) -> None:
        assert outcome.result is not None
        errors = outcome.errors() if outcome.has_failed else []
        error = combine(errors, of=outcome.size, what=f"items of {self._origin.name}") if errors else None
        value = outcome.read()[0] if self._origin.source is not None else None
        reply = value if _is_reply(value) else None
        metadata["engine_uuid"] = outcome.result.engine_key or None
        describe_end(
            metadata,
            outcome.result,
            received=outcome.received,
            error=error,
            execute_result=reply if reply is not None and reply["data"] else None,
        )

    def _hand_out(self, outcome: Outcome) -> tuple[Any, Exception | None]:
        """What a task came to, as the user sees it."""
        value, error = outcome.read()
        if self._origin.source is not None and error is None:
            reply = value if _is_reply(value) else _SILENT
            value = ExecuteReply(reply, describe=lambda: self._describe(outcome))
        return value, error

    # ------------------------------------------------------------ times

    @property
    def progress(self) -> int:
        """How many of its tasks have ended."""
        return sum(outcome.is_done for outcome in self._outcomes)

    def standing(self) -> Standing:
        """How far it is, at this moment: what a progress bar shows.

        >>> ar.standing().done, ar.standing().left_s                    # doctest: +SKIP
        (37, 21.5)
        """
        self._look_inside()
        return self._standing()

    def _standing(self) -> Standing:
        """The same without a look inside: for what must not run code of the user's."""
        with self._state_lock:
            tally = self._tally or _NOTHING
            under_way = tally.under_way(self._is_counted)
            done = self._ended_count() + under_way.done
            failed, cancelled = self._troubles(tally)
        told = [outcome for outcome in under_way.outcomes if outcome.report is not None]
        return Standing(
            done=done,
            total=self._length_hint(),
            failed=failed + under_way.failed,
            cancelled=cancelled + under_way.cancelled,
            name=self._origin.name,
            unit=self._unit,
            elapsed_s=self.elapsed,
            ahead=under_way.ahead,
            lines=tuple(map(self._line_of, told[:LINES_SHOWN])),
            more_lines=max(0, len(told) - LINES_SHOWN),
        )

    def _line_of(self, outcome: Outcome) -> TaskLine:
        report, moved = outcome.report or Report(), outcome.moved
        engine = "" if moved is None or moved.engine == NO_ENGINE else f"engine {moved.engine}"
        where = ", ".join(filter(None, [self._place_of(outcome), engine]))
        return TaskLine(where, report.fraction, report.text)

    @property
    def elapsed(self) -> float:
        """Seconds since it was sent, until it ended."""
        return (self._finished or time.time()) - self._submitted

    @property
    def wall_time(self) -> float:
        """Seconds from sending to the arrival of the last result; raises TimeoutError before."""
        self._need_end("wall_time")
        return self._finished - self._submitted

    @property
    def serial_time(self) -> float:
        """Seconds that its tasks took on the engines, added up; raises TimeoutError before the end."""
        self._need_end("serial_time")
        return sum((outcome.duration_s for outcome in self._outcomes), 0.0)

    def timedelta(
        self,
        start: datetime | Iterable[datetime],
        end: datetime | Iterable[datetime],
        start_key: Callable[[Iterable[datetime]], datetime] = min,
        end_key: Callable[[Iterable[datetime]], datetime] = max,
    ) -> float:
        """Return the seconds between two times, or lists of them as `ar.started` has.

        Of a list counts what the key makes of it: by default the earliest start and the latest end. Raises
        TimeoutError if a time is not known yet.

        >>> ar.timedelta(ar.started, ar.completed)                      # doctest: +SKIP
        0.25
        """
        return (_moment(end, end_key) - _moment(start, start_key)).total_seconds()

    def _need_end(self, what: str) -> None:
        if not self.done():
            raise TimeoutError(f"{what} is known when all has ended; call wait() first")

    # ------------------------------------------------------------ sending

    @property
    def sent(self) -> bool:
        """Whether nothing of its arguments is read any more: editing arrays changes no task from then on."""
        return self._is_all_sent() and self._session.is_accepted(self.task_ids)

    def wait_for_send(self, timeout: float | None = -1) -> bool:
        """Wait until it is `sent`; False if that took longer than `timeout`."""
        return self._wait_for(lambda: self.sent, timeout)

    wait_on_send = wait_for_send

    def _is_all_sent(self) -> bool:
        return all(outcome.task is not None for outcome in self._outcomes)

    # ------------------------------------------------------------ text and displays

    def wait_for_output(self, timeout: float | None = -1) -> bool:
        """Wait until all has ended and every text, display and value is here; False if that took longer.

        What has not come 5 s after the last that did has been lost on the way, and is waited for no longer.
        """
        deadline = None if timeout is None or timeout < 0 else time.monotonic() + timeout
        if not self._wait_for(self.done, timeout):
            return False
        late = [outcome for outcome in self._outcomes if not outcome.has_all_output]
        while late:
            left = max(outcome.heard_at for outcome in late) + LATE_OUTPUT_S - time.time()
            if deadline is not None:
                left = min(left, deadline - time.monotonic())
            if left <= 0 or self._session.closed:
                return False
            self._wait_for(partial(_have_all_output, late), left)
            late = [outcome for outcome in late if not outcome.has_all_output]
        return True

    @contextmanager
    def stream_output(
        self, fold: bool = False, *, around: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> Iterator[OutputStream]:
        """Show what the tasks write and display as it comes, in a `with` block; first what has come before.

        With `fold` it is shown at each `flush` of the stream, what several engines write alike only once.
        `around` makes a context manager that is entered whenever something is written.

        >>> with ar.stream_output():                                    # doctest: +SKIP
        ...     ar.wait()
        """
        stream = self._stream = OutputStream(
            is_tagged=not self._origin.is_single, is_folded=fold, around=around
        )
        try:
            for outcome in list(self._outcomes):
                stream.add(outcome)
            yield stream
            if self.done():
                self.wait_for_output()
        finally:
            self._stream = None
            stream.close()

    def replay(self, timeout: float | None = -1) -> bool:
        """Show what its tasks have written and displayed, then what comes, with a bar, until all have ended.

        For whoever was not there: after the page was reloaded or the kernel restarted, in any client, of
        tasks that run or have ended (see `Client.get_label`, `Client.get_result`, `Client.replay`). Nothing
        is lost or shown twice; what several engines show alike is shown once. False if that took longer than
        `timeout` seconds; tasks go on, also after Ctrl-C.

        >>> ipp.Client().get_label("night run")[-1].replay()            # doctest: +SKIP
        simulate:  38%|███▊      | 380/1,000 items [5:12<8:29]
        """
        deadline = None if timeout is None or timeout < 0 else time.monotonic() + timeout
        with (
            ProgressBar(self.standing) as bar,
            self.stream_output(fold=True, around=bar.hidden) as stream,
        ):
            while not self.done():
                left = REPLAY_S if deadline is None else min(REPLAY_S, deadline - time.monotonic())
                if left <= 0:
                    return False
                self._wait_for(self.done, left)
                stream.flush()
                bar.move()
        self.display_outputs(result_only=True, fold=True)
        return True

    def display_outputs(
        self, groupby: str = "type", result_only: bool = False, *, fold: bool = False
    ) -> None:
        """Wait for the end, then show what the tasks have written and displayed, and what they are worth.

        `groupby` is ``"type"`` (all of stdout, then all of stderr, …), ``"engine"`` (all of one engine, then
        of the next), or ``"order"`` (like type, but the first displays of all, then the second ones). With
        `result_only` only the values of executed text are shown, with `fold` what several engines show alike
        only once: ``[stdout:0-3]``. Raises ValueError for another `groupby`.
        """
        if groupby not in GROUPINGS:
            raise ValueError(f"groupby is one of {', '.join(GROUPINGS)}, not {groupby!r}")
        self.wait_for_output()
        tasks = [(self._describe(outcome), self._hand_out(outcome)[0]) for outcome in list(self._outcomes)]
        show_outputs(
            tasks,
            groupby=groupby,
            result_only=result_only,
            is_single=self._origin.is_single,
            is_folded=fold,
        )

    # ------------------------------------------------------------ for the classes below

    def _wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        return predicate() or self._session.wait_until(predicate, timeout)

    # ------------------------------------------------------------ how it shows itself

    @property
    def _glance(self) -> Glance:
        if self._own_glance is None:
            self._own_glance = Glance()
        return self._own_glance

    def _snapshot(self, *, may_wait: bool) -> ResultSnapshot:
        return snapshot_of(self, self._session, self._glance, may_wait=may_wait)

    def _live_session(self) -> TaskSession | None:
        return None if self.done() or self._session.closed else self._session

    def _length_hint(self) -> int | None:
        return len(self._outcomes)

    def _ended_count(self) -> int:
        """How many have ended; under the lock."""
        return len(self._outcomes) - self._open

    def _is_counted(self, outcome: Outcome) -> bool:
        raise NotImplementedError

    def _look_inside(self) -> None:
        """Unpickle what has to be known for `standing`, without the lock."""

    def _troubles(self, tally: Tally) -> tuple[int, int]:
        """How many have failed and were cancelled, of those that have ended; under the lock."""
        return tally.failed, tally.cancelled

    def _place_of(self, outcome: Outcome) -> str:
        """What one task is about, in a line of its own; empty if its engine says it."""
        return ""

    def __repr__(self) -> str:
        standing, size = self._standing(), len(self._outcomes)
        troubles = ((standing.failed, "failed"), (standing.cancelled, "cancelled"))
        found = [(number, what) for number, what in troubles if number]
        if not self.done():
            words = [f"{number} {what}" for number, what in found]
            state = ", ".join([f"{standing.done} of {size} done", *words])
        elif not found:
            state = "finished"
        else:
            state = found[0][1]
        return f"<{type(self).__name__}: {self._origin.name or 'call'}: {state}>"


def _have_all_output(outcomes: Sequence[Outcome]) -> bool:
    return all(outcome.has_all_output for outcome in outcomes)


_SILENT: Mapping[str, Any] = {"execution_count": 0, "data": {}, "metadata": {}}


def _is_reply(value: Any) -> bool:
    return type(value) is dict and value.keys() == {"execution_count", "data", "metadata"}


def _moment(
    times: datetime | Iterable[datetime | None] | None, key: Callable[[Iterable[datetime]], datetime]
) -> datetime:
    if isinstance(times, datetime):
        return times
    moments = [None] if times is None else list(times)
    known = [moment for moment in moments if moment is not None]
    if len(known) < len(moments):
        raise TimeoutError("one of these times is not known yet; call wait() first")
    return key(known)
