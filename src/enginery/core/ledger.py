"""The client's side: what it has asked for, what was accepted, what has come back.

A submission is *queued* (over the credit, or not yet pumped), *sent*, *accepted* (committed at the
controller), and gone when its last task has ended. What is not accepted is sent again after each hello; what
was accepted is the controller's to keep. Credits bound what the controller must hold for this client: tasks
and bytes sent and not finished. Above `BACKLOG` unsent calls the shell makes the caller wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

from enginery.ids import BlobId, ClientId, EngineId, TaskId, make_task_id, task_number
from enginery.protocol.codec import Buffer
from enginery.protocol.link import RECORD_BYTES, Link, cut_blob
from enginery.protocol.messages import (
    INLINE_LIMIT,
    Abort,
    Call,
    ClientWelcome,
    Ranges,
    Received,
    Status,
    Submit,
    TaskOptions,
    TaskResult,
)
from enginery.protocol.ranges import NumberSet

CALLS_PER_RECORD = 1000
BYTES_PER_RECORD = 1 << 18
BACKLOG_CALLS = 200_000
BACKLOG_BYTES = 1 << 30
TAKEN_PER_REPORT = 100
"""Results taken before the controller is told; sooner when the client goes quiet, see `report`."""
FORGOTTEN = "the controller that had accepted it has ended, and this one does not know of it"

Promise = TypeVar("Promise")


class Blob(NamedTuple):
    """A buffer that travels apart from the record that names it."""

    blob_id: BlobId
    data: Buffer
    keep: bool


class _Submission(Generic[Promise]):
    """One call: as many tasks as engines it names, one if balanced."""

    __slots__ = ("accepted", "blobs", "call", "open", "options", "promises", "sent", "size_bytes")

    def __init__(
        self,
        options: TaskOptions,
        call: Call,
        blobs: Sequence[Blob],
        promises: Sequence[Promise],
        size_bytes: int,
    ) -> None:
        self.options = options
        self.call = call
        self.blobs: Sequence[Blob] = blobs
        self.promises = promises
        self.size_bytes = size_bytes
        self.open = len(promises)  # tasks that have not ended
        self.sent = False
        self.accepted = False


class LedgerStatistics(NamedTuple):
    queued: int
    under_way: int
    finished: int


class Ledger(Generic[Promise]):
    """All unfinished calls of one client. Not thread-safe: the session holds its lock."""

    def __init__(self, client: ClientId) -> None:
        self.client = client
        self._next_number = 1
        self._tasks: dict[int, _Submission[Promise]] = {}  # by task number; several per call
        self._queued: deque[_Submission[Promise]] = deque()
        self._queued_bytes = 0
        self._sent_tasks = 0
        self._sent_bytes = 0
        self._task_window = 0  # until the first welcome nothing is sent
        self._byte_window = 0
        self._uploaded: set[BlobId] = set()  # kept blobs sent in this epoch
        self._aborting: set[TaskId] = set()
        self._received = NumberSet()  # deliveries; a large result may be overtaken by later ones
        self._reported = 0
        self._has_taken_much = False  # since the last report: blobs fill the controller's window fast
        self._finished = 0

    def __repr__(self) -> str:
        return f"<Ledger of {self.client:08x}: {self.statistics()}>"

    # ------------------------------------------------------------ questions

    @property
    def received(self) -> int:
        """Every delivery below this number has been taken: for the hello."""
        return self._received.low

    @property
    def is_over_backlog(self) -> bool:
        return len(self._queued) > BACKLOG_CALLS or self._queued_bytes > BACKLOG_BYTES

    @property
    def has_output(self) -> bool:
        """Whether `pump` would have something to say."""
        return bool(self._queued) or self._is_report_due

    def promise(self, task: TaskId) -> Promise | None:
        """The promise of an unfinished task."""
        submission = self._tasks.get(task_number(task))
        return None if submission is None else submission.promises[task_number(task) - submission.call.number]

    @property
    def outstanding_count(self) -> int:
        return len(self._tasks)

    def outstanding(self) -> set[TaskId]:
        return {make_task_id(self.client, number) for number in self._tasks}

    def statistics(self) -> LedgerStatistics:
        return LedgerStatistics(len(self._queued), self._sent_tasks, self._finished)

    # ------------------------------------------------------------ facts: from the user

    def on_submitted(
        self,
        options: TaskOptions,
        payload: bytes,
        blobs: Sequence[Blob],
        promises: Sequence[Promise],
        engines: tuple[EngineId, ...] = (),
    ) -> TaskId:
        """Take a call; `promises` has one entry per task. Returns the first task's id, the others follow it.

        `blobs` holds the function's blob (if the options name one) and those that the payload refers to, in
        order.
        """
        number = self._next_number
        self._next_number += len(promises)
        size = len(payload) + sum(len(memoryview(blob.data).cast("B")) for blob in blobs if not blob.keep)
        submission = _Submission(
            options,
            Call(
                number,
                payload,
                tuple(blob.blob_id for blob in blobs if blob.blob_id != options.function),
                engines,
            ),
            blobs,
            promises,
            size,
        )
        for task in range(number, self._next_number):
            self._tasks[task] = submission
        self._queued.append(submission)
        self._queued_bytes += size
        return make_task_id(self.client, number)

    def on_abort(self, tasks: Iterable[TaskId], link: Link) -> list[tuple[Promise, TaskResult]]:
        """Take tasks back. Those that never left end here; for the others the controller is asked."""
        ended: list[tuple[Promise, TaskResult]] = []
        asked: list[TaskId] = []
        unsent: dict[int, int] = {}
        for task in dict.fromkeys(tasks):
            submission = self._tasks.get(task_number(task))
            if submission is None:
                continue
            if submission.sent:
                asked.append(task)
            else:
                self._aborting.add(task)
                unsent[submission.call.number] = unsent.get(submission.call.number, 0) + 1
        if unsent:
            kept: deque[_Submission[Promise]] = deque()
            for submission in self._queued:
                if unsent.get(submission.call.number, 0) < len(submission.promises):
                    kept.append(submission)  # where only some of its engines are meant, `pump` asks for these
                    continue
                self._queued_bytes -= submission.size_bytes
                for offset in range(len(submission.promises)):
                    task = make_task_id(self.client, submission.call.number + offset)
                    ended.append(self._close(submission, TaskResult(task, Status.ABORTED)))
            self._queued = kept
        if asked:
            self._aborting.update(asked)
            # What is not accepted may still wait in the bulk lane, and must not be overtaken.
            is_accepted = all(self._tasks[task_number(task)].accepted for task in asked)
            put = link.put if is_accepted else link.put_after_bulk
            put(Abort(asked), RECORD_BYTES + 9 * len(asked))
        return ended

    def on_closed(self, detail: str) -> list[tuple[Promise, TaskResult]]:
        """The session is over: every task ends here, whatever becomes of it at the controller."""
        self._queued.clear()
        self._queued_bytes = 0
        ended: list[tuple[Promise, TaskResult]] = []
        for submission in list(dict.fromkeys(self._tasks.values())):
            submission.sent, was_sent = True, submission.sent
            if not was_sent:
                self._sent_tasks += submission.open
                self._sent_bytes += submission.size_bytes
            ended.extend(self._lose(submission, detail))
        return ended

    # ------------------------------------------------------------ facts: from the controller

    def on_welcome(self, welcome: ClientWelcome, link: Link) -> list[tuple[Promise, TaskResult]]:
        """A hello was answered: send again what is not accepted. Returns tasks that are lost for good.

        The queue and all sums are made anew from the tasks themselves, so that whatever an interrupt (Ctrl-C)
        in mid-step may have left half done is whole again after the hello that follows it.
        """
        self._task_window, self._byte_window = welcome.task_window, welcome.byte_window
        self._received = NumberSet(welcome.first_delivery)
        self._reported = welcome.first_delivery
        self._uploaded.clear()
        accepted = NumberSet.from_ranges(welcome.accepted)
        forgotten: list[_Submission[Promise]] = []
        self._queued.clear()
        self._queued_bytes = self._sent_tasks = self._sent_bytes = 0
        for submission in dict.fromkeys(self._tasks.values()):
            was_accepted = submission.accepted
            if submission.call.number in accepted:
                self._accept(submission)
            submission.sent = submission.accepted
            if submission.sent:
                self._sent_tasks += submission.open
                self._sent_bytes += submission.size_bytes
                if was_accepted and submission.call.number not in accepted:
                    forgotten.append(submission)
            else:
                self._queued.append(submission)
                self._queued_bytes += submission.size_bytes
        lost = [ended for submission in forgotten for ended in self._lose(submission, FORGOTTEN)]
        self._aborting.intersection_update(self.outstanding())
        asked = sorted(task for task in self._aborting if self._tasks[task_number(task)].sent)
        if asked:
            link.put(Abort(asked), RECORD_BYTES + 9 * len(asked))
        return lost

    def on_accepted(self, ranges: Ranges) -> None:
        tasks = self._tasks
        for first, last in ranges:
            for number in range(first, last + 1):
                submission = tasks.get(number)
                if submission is not None:
                    self._accept(submission)

    def on_resend(self, numbers: Iterable[int], blobs: Iterable[BlobId]) -> None:
        """The controller has not (or no longer) some blobs of these calls: both are sent again."""
        self._uploaded.difference_update(blobs)
        self._requeue(
            [
                submission
                for number in numbers
                if (submission := self._tasks.get(number)) is not None
                and submission.sent
                and not submission.accepted
            ]
        )

    def on_finished(self, first: int, results: Sequence[TaskResult]) -> list[tuple[Promise, TaskResult]]:
        """Deliveries have come. Returns those that are news, and changes nothing.

        A result counts as taken when its promise has it: the shell fulfils the promises and then says
        `on_taken`. If it is interrupted in between, the results come again after the next hello.
        """
        return [
            (submission.promises[task_number(result.task) - submission.call.number], result)
            for number, result in enumerate(results, first)
            if number not in self._received
            and (submission := self._tasks.get(task_number(result.task))) is not None
        ]

    def on_taken(self, first: int, results: Sequence[TaskResult]) -> None:
        """The promises of these deliveries are fulfilled."""
        add = self._received.add
        for number, result in enumerate(results, first):
            if result.blobs:
                self._has_taken_much = True
            if add(number):
                submission = self._tasks.get(task_number(result.task))
                if submission is not None:
                    self._close(submission, result)

    # ------------------------------------------------------------ out

    def pump(self, link: Link) -> None:
        """Hand queued calls to the link, as far as the credit goes, as few records."""
        if self._is_report_due:
            self.report(link)
        options: TaskOptions | None = None
        calls: list[Call] = []
        weight = 0
        has_bulk = False
        late: list[TaskId] = []
        while self._queued and self._has_credit():
            submission = self._queued.popleft()
            self._queued_bytes -= submission.size_bytes
            if (
                submission.options is not options
                or len(calls) >= CALLS_PER_RECORD
                or weight > BYTES_PER_RECORD
            ):
                self._put(link, options, calls, weight, has_bulk)
                options, calls, weight, has_bulk = submission.options, [], RECORD_BYTES, False
            has_bulk = self._upload(submission, link) or has_bulk
            calls.append(submission.call)
            weight += RECORD_BYTES + len(submission.call.payload) + 9 * len(submission.call.engines)
            submission.sent = True
            if self._aborting:
                late.extend(self._aborting_of(submission))
            self._sent_tasks += submission.open
            self._sent_bytes += submission.size_bytes
        self._put(link, options, calls, weight, has_bulk)
        if late:
            # An abort may come before its task when the task waits in the bulk lane: it goes the same way.
            link.put_after_bulk(Abort(late), RECORD_BYTES + 9 * len(late))

    def report(self, link: Link) -> None:
        """Tell the controller what has arrived, so that it need not keep it."""
        if self._received.low > self._reported:
            self._reported = self._received.low
            self._has_taken_much = False
            link.put(Received(self._reported))

    # ------------------------------------------------------------ inside

    @property
    def _is_report_due(self) -> bool:
        taken = self._received.low - self._reported
        return taken >= TAKEN_PER_REPORT or (taken > 0 and self._has_taken_much)

    def _has_credit(self) -> bool:
        if not self._sent_tasks:
            return self._task_window > 0  # one call goes out whatever its size
        return self._sent_tasks < self._task_window and self._sent_bytes < self._byte_window

    def _upload(self, submission: _Submission[Promise], link: Link) -> bool:
        """Queue the blobs that the controller lacks. True if the call must not overtake the bulk lane."""
        in_bulk = bool(submission.call.blobs)  # a kept one may still be there, put by an earlier call
        for blob in submission.blobs:
            if blob.keep:
                if blob.blob_id in self._uploaded:
                    in_bulk = in_bulk or len(blob.data) > INLINE_LIMIT
                    continue
                self._uploaded.add(blob.blob_id)
            in_bulk = link.put_blob(cut_blob(blob.blob_id, blob.data, keep=blob.keep)) or in_bulk
        return in_bulk

    def _put(
        self, link: Link, options: TaskOptions | None, calls: list[Call], weight: int, has_bulk: bool
    ) -> None:
        if options is None or not calls:
            return
        record = Submit(options, calls)
        if has_bulk:
            link.put_after_bulk(record, weight)
        else:
            link.put(record, weight)

    def _aborting_of(self, submission: _Submission[Promise]) -> list[TaskId]:
        first = submission.call.number
        tasks = [
            make_task_id(self.client, number) for number in range(first, first + len(submission.promises))
        ]
        return [task for task in tasks if task in self._aborting]

    def _accept(self, submission: _Submission[Promise]) -> None:
        submission.accepted = True
        submission.blobs = ()  # the controller holds them now

    def _requeue(self, submissions: list[_Submission[Promise]]) -> None:
        for submission in reversed(submissions):
            submission.sent = False
            self._sent_tasks -= submission.open
            self._sent_bytes -= submission.size_bytes
            self._queued_bytes += submission.size_bytes
            self._queued.appendleft(submission)

    def _close(self, submission: _Submission[Promise], result: TaskResult) -> tuple[Promise, TaskResult]:
        number = task_number(result.task)
        del self._tasks[number]
        self._aborting.discard(result.task)
        self._finished += 1
        submission.open -= 1
        if submission.sent:
            self._sent_tasks -= 1
            if not submission.open:
                self._sent_bytes -= submission.size_bytes
        return submission.promises[number - submission.call.number], result

    def _lose(self, submission: _Submission[Promise], detail: str) -> list[tuple[Promise, TaskResult]]:
        return [
            self._close(
                submission, TaskResult(make_task_id(self.client, number), Status.REFUSED, detail=detail)
            )
            for number in range(submission.call.number, submission.call.number + len(submission.promises))
            if number in self._tasks
        ]

    def check(self) -> None:
        """Assert every invariant."""
        submissions = list(dict.fromkeys(self._tasks.values()))
        queued = list(self._queued)
        assert len(set(map(id, queued))) == len(queued)
        assert self._queued_bytes == sum(submission.size_bytes for submission in queued)
        sent = [submission for submission in submissions if submission.sent]
        assert self._sent_tasks == sum(submission.open for submission in sent)
        assert self._sent_bytes == sum(submission.size_bytes for submission in sent)
        assert {id(submission) for submission in submissions} == {
            id(submission) for submission in (*sent, *queued)
        }
        for submission in queued:
            assert not submission.sent
            assert not submission.accepted
        assert self._aborting <= self.outstanding()
