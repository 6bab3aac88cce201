"""The client's side: what it has asked for, what was accepted, what has come back.

A submission is *queued* (over the credit, or not yet pumped), *copying* (its big buffers go into shared
memory), *sent*, *accepted* (committed at the controller), and gone when its last task has ended. What is not
accepted is sent again after each hello; what was accepted is the controller's to keep. Credits bound what the
controller must hold for this client: tasks and bytes sent and not finished. Above `BACKLOG` unsent calls the
shell makes the caller wait.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import msgspec

from enginery.core.call_queue import CallQueue
from enginery.core.copying import CopyLine
from enginery.core.kept_copies import KeptCopies
from enginery.core.submissions import Blob, Copies, Submission
from enginery.core.wishes import ABORT, Wish, Wishes, say
from enginery.errors import TooLarge
from enginery.ids import NO_TASK, BlobId, ClientId, EngineId, TaskId, make_task_id, task_client, task_number
from enginery.protocol.link import RECORD_BYTES, Link, cut_blob
from enginery.protocol.messages import (
    CALL_LIMIT_BYTES,
    ENGINES_PER_CALL,
    INLINE_LIMIT,
    Call,
    ClientWelcome,
    Ranges,
    Received,
    ShareBlob,
    Status,
    Submit,
    TaskOptions,
    TaskResult,
)
from enginery.protocol.ranges import NumberSet, collect_ranges

CALLS_PER_RECORD = 1000
BYTES_PER_RECORD = 1 << 18
BACKLOG_CALLS = 200_000
BACKLOG_BYTES = 1 << 30
TAKEN_PER_REPORT = 100
"""Results taken before the controller is told; sooner when the client goes quiet, see `report`."""
FORGOTTEN = "the controller that had accepted it has ended, and this one does not know of it"

Promise = TypeVar("Promise")


class LedgerStatistics(NamedTuple):
    queued: int
    under_way: int
    finished: int


class Ledger(Generic[Promise]):
    """All unfinished calls of one client. Not thread-safe: the session holds its lock."""

    def __init__(self, client: ClientId, *, is_lent: Callable[[str], bool] = bool) -> None:
        self.client = client
        self._is_lent = is_lent  # whether a segment is not released yet
        self._base = make_task_id(client, 0)  # a task's id less this is its number, if it is of this client
        self._next_number = 1
        self._tasks: dict[int, Submission[Promise]] = {}  # by task number; several per call
        self._queued: CallQueue[Promise] = CallQueue()
        self._sent_tasks = 0
        self._sent_bytes = 0
        self._task_window = 0  # until the first welcome nothing is sent
        self._byte_window = 0
        self._uploaded: set[BlobId] = set()  # kept blobs sent in this epoch
        self._wishes = Wishes()
        self._received = NumberSet()  # deliveries; a large result may be overtaken by later ones
        self._reported = 0
        self._has_taken_much = False  # since the last report: blobs fill the controller's window fast
        self._finished = 0
        self.shared_from_bytes = 0  # buffers of this size go through shared memory; 0 = none does
        self._line: CopyLine[Submission[Promise]] = CopyLine()
        self._to_copy: list[Copies] = []
        self._kept: KeptCopies[Submission[Promise]] = KeptCopies()
        self._unused_segments: list[str] = []

    def __repr__(self) -> str:
        return f"<Ledger of {self.client:08x}: {self.statistics()}>"

    # ------------------------------------------------------------ questions

    @property
    def received(self) -> int:
        """Every delivery below this number has been taken: for the hello."""
        return self._received.low

    @property
    def is_over_backlog(self) -> bool:
        return len(self._queued) > BACKLOG_CALLS or self._queued.size_bytes > BACKLOG_BYTES

    @property
    def has_output(self) -> bool:
        """Whether `pump` would have something to say."""
        return bool(self._queued) or self._is_report_due or self._line.has_news

    def is_outstanding(self, task: TaskId) -> bool:
        """Any thread may ask this."""
        return task - self._base in self._tasks

    def promise(self, task: TaskId) -> Promise | None:
        """The promise of an unfinished task of this client."""
        submission = self._tasks.get(task - self._base)
        return None if submission is None else self._promise(submission, task)

    def options(self, task: TaskId) -> TaskOptions | None:
        """The options of an unfinished task of this client."""
        submission = self._tasks.get(task - self._base)
        return None if submission is None else submission.options

    @property
    def mark(self) -> int:
        """What is submitted from now on is after this mark."""
        return self._next_number

    def submitted_since(self, mark: int, submitter: int) -> list[TaskId]:
        """The unfinished tasks that one has submitted after a mark, and parts of the same calls by others."""
        since = [(number, sub) for number, sub in self._tasks.items() if number >= mark]
        own = {sub.call.number for _, sub in since if sub.submitter == submitter}
        found = (number for number, sub in since if sub.call.number in own or sub.call.first in own)
        return [make_task_id(self.client, number) for number in found]

    def is_accepted(self, task: TaskId) -> bool:
        """Whether the controller has the task safe: it is accepted, or it has ended."""
        submission = self._tasks.get(task - self._base)
        return submission is None or submission.accepted

    @property
    def held_bytes(self) -> int:
        """Of calls that have not ended."""
        return self._queued.size_bytes + self._sent_bytes

    @property
    def outstanding_count(self) -> int:
        return len(self._tasks)

    @property
    def unaccepted_count(self) -> int:
        """Tasks that the controller has not said to have safe."""
        return sum(not submission.accepted for submission in self._tasks.values())

    def outstanding(self) -> set[TaskId]:
        return {make_task_id(self.client, number) for number in self._tasks}

    def sent_again(self) -> Ranges:
        """For the hello: the numbers of calls that have been sent and may not be safe at the controller."""
        calls = [call for call in dict.fromkeys(self._tasks.values()) if call.has_left and not call.accepted]
        return collect_ranges(number for call in calls for number in call.numbers)

    def statistics(self) -> LedgerStatistics:
        return LedgerStatistics(len(self._queued) + len(self._line), self._sent_tasks, self._finished)

    # ------------------------------------------------------------ facts: from the user

    def on_submitted(
        self,
        options: TaskOptions,
        payload: bytes,
        blobs: Sequence[Blob],
        promises: Sequence[Promise],
        engines: tuple[EngineId, ...] = (),
        first: TaskId | None = None,
        *,
        submitter: int = 0,
        parent: TaskId = NO_TASK,
    ) -> TaskId:
        """Take a call; `promises` has one entry per task. Returns the first task's id, the others follow it.

        `first` is the first task of what this is a part of, if that has been submitted before; `parent` the
        task that makes it while it runs; `submitter` is who may ask for it by `submitted_since`. `blobs` has
        the function's blob (if the options name one) and those that the payload refers to, in order. Raises
        TooLarge or ValueError for a call above the limits of the protocol.
        """
        if (count := len(engines)) > ENGINES_PER_CALL:
            raise ValueError(f"one call goes to {ENGINES_PER_CALL:,} engines at most, not to {count:,}")
        size = total = len(payload)
        for blob in blobs:
            total += blob.size_bytes
            if not blob.keep:
                size += blob.size_bytes
        if total > CALL_LIMIT_BYTES:
            raise TooLarge("what this call sends", size_bytes=total, limit_bytes=CALL_LIMIT_BYTES)
        number = self._next_number
        self._next_number += len(promises)
        submission = Submission(
            options,
            Call(
                number,
                payload,
                tuple(blob.blob_id for blob in blobs if blob.blob_id != options.function),
                engines,
                0 if first is None else task_number(first),
                parent,
            ),
            blobs,
            promises,
            size,
            submitter,
        )
        for task in range(number, self._next_number):
            self._tasks[task] = submission
        self._queued.append(submission)
        return make_task_id(self.client, number)

    def on_wish(self, tasks: Iterable[TaskId], wish: Wish, link: Link) -> list[tuple[Promise, TaskResult]]:
        """Take tasks back, or end them. Those that never left end here; others are the controller's."""
        ended: list[tuple[Promise, TaskResult]] = []
        asked: list[TaskId] = []
        others: list[TaskId] = []
        unsent: dict[int, int] = {}
        for task in dict.fromkeys(tasks):
            submission = self._tasks.get(task - self._base)
            if submission is None:
                if task_client(task) != self.client:
                    others.append(task)
                continue
            self._wishes.add(task, wish)
            if submission.sent and not submission.copying:
                asked.append(task)
            elif not (submission.copying or submission.has_left):  # `pump` asks for those
                unsent[submission.call.number] = unsent.get(submission.call.number, 0) + 1
        if unsent:
            ended = self._end_unsent(unsent, wish.status)
        if others:
            self._wishes.add_others(others, wish)
            say(((task, wish) for task in others), link.put)
        self._say_wishes(asked, link)
        return ended

    def on_items_unwanted(self, task: TaskId, items: Iterable[int], link: Link) -> None:
        """Some items of a part of a map are not to run, or to be ended."""
        submission = self._tasks.get(task - self._base)
        if submission is not None:
            self._wishes.add_items(task, items)
            if submission.sent and not submission.copying:
                self._say_wishes([task], link)

    def on_priority(self, tasks: Iterable[TaskId], priority: int) -> list[TaskId]:
        """Change the priority of calls that have not left. Returns the tasks to ask the controller for."""
        asked: list[TaskId] = []
        changed: dict[int, TaskOptions] = {}  # calls of one options object stay together
        for task in tasks:
            submission = self._tasks.get(task - self._base)
            if submission is None or submission.sent:
                asked.append(task)
                continue
            options = submission.options
            if options.priority != priority:
                if id(options) not in changed:
                    changed[id(options)] = msgspec.structs.replace(options, priority=priority)
                submission.options = changed[id(options)]
        return asked

    def _end_unsent(self, wanted: Mapping[int, int], status: Status) -> list[tuple[Promise, TaskResult]]:
        """End calls in the queue, by their numbers, if all of their tasks are wanted back."""
        ended: list[tuple[Promise, TaskResult]] = []
        for number, count in wanted.items():
            submission = self._tasks[number]
            if count < len(submission.promises):
                continue  # where only some of its engines are meant, `pump` asks for these
            self._queued.discard(submission)
            for own in submission.numbers:
                ended.append(self._close(submission, TaskResult(make_task_id(self.client, own), status)))
        return ended

    def _say_wishes(self, tasks: list[TaskId], link: Link) -> None:
        if tasks:
            # What is not accepted may still wait in the bulk lane, and must not be overtaken.
            is_accepted = all(self._tasks[task - self._base].accepted for task in tasks)
            self._wishes.say(tasks, link.put if is_accepted else link.put_after_bulk)

    def on_unsendable(self, calls: Iterable[Call], detail: str) -> list[tuple[Promise, TaskResult]]:
        """These were on the link, and cannot be sent: their tasks end here."""
        found = [self._tasks[call.number] for call in calls if call.number in self._tasks]
        return [ended for submission in found for ended in self._lose(submission, detail)]

    def on_closed(self, detail: str) -> list[tuple[Promise, TaskResult]]:
        """The session is over: every task ends here, whatever becomes of it at the controller."""
        self._queued.clear()
        self._line.clear()
        self._to_copy.clear()
        ended: list[tuple[Promise, TaskResult]] = []
        for submission in list(dict.fromkeys(self._tasks.values())):
            submission.sent, was_sent = True, submission.sent
            submission.copying = False
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
        self._kept.restart(told=self._uploaded)
        self._uploaded.clear()
        accepted = NumberSet.from_ranges(welcome.accepted)
        arrived = NumberSet.from_ranges(welcome.arrived)
        forgotten: list[Submission[Promise]] = []
        self._queued.clear()
        self._line.clear()
        self._to_copy.clear()
        self._sent_tasks = self._sent_bytes = 0
        for submission in dict.fromkeys(self._tasks.values()):
            was_accepted = submission.accepted
            if submission.call.number in accepted:
                self._accept(submission)
            submission.sent = submission.accepted or submission.call.number in arrived
            submission.copying = False
            if submission.sent:
                self._sent_tasks += submission.open
                self._sent_bytes += submission.size_bytes
                if was_accepted and submission.call.number not in accepted:
                    forgotten.append(submission)
            else:
                self._queued.append(submission)
        lost = [ended for submission in forgotten for ended in self._lose(submission, FORGOTTEN)]
        self._wishes.keep(self.outstanding())
        self._wishes.say_all(lambda task: self._tasks[task - self._base].sent, link.put)
        return lost

    def on_accepted(self, ranges: Ranges) -> None:
        tasks = self._tasks
        for first, last in ranges:
            for number in range(first, last + 1):
                if (submission := tasks.get(number)) is not None:
                    self._accept(submission)

    def on_resend(self, numbers: Iterable[int], blobs: Iterable[BlobId]) -> None:
        """The controller has not (or no longer) some blobs of these calls: both are sent again."""
        blobs = list(blobs)
        self._uploaded.difference_update(blobs)
        self._unused_segments.extend(self._kept.forget(blobs))
        self._requeue(
            [
                submission
                for number in numbers
                if (submission := self._tasks.get(number)) is not None
                and submission.sent
                and not submission.copying
                and not submission.accepted
            ],
            blobs,
        )

    def on_finished(self, first: int, results: Sequence[TaskResult]) -> list[tuple[Promise, TaskResult]]:
        """Deliveries have come. Returns those that are news, and changes nothing.

        A result counts as taken when its promise has it: the shell fulfils the promises and then says
        `on_taken`. If it is interrupted in between, the results come again after the next hello.
        """
        return [
            (self._promise(submission, result.task), result)
            for number, result in enumerate(results, first)
            if number not in self._received
            and (submission := self._tasks.get(result.task - self._base)) is not None
        ]

    def on_taken(self, first: int, results: Sequence[TaskResult]) -> None:
        """The promises of these deliveries are fulfilled."""
        add = self._received.add
        for number, result in enumerate(results, first):
            if result.blobs:
                self._has_taken_much = True
            if add(number):
                submission = self._tasks.get(result.task - self._base)
                if submission is not None:
                    self._close(submission, result)

    # ------------------------------------------------------------ shared memory

    def take_copies(self) -> list[Copies]:
        """Calls whose buffers are to be copied now; `on_copied` is to follow for each."""
        copies, self._to_copy = self._to_copy, []
        return copies

    def on_copied(self, copies: Copies, segments: Mapping[BlobId, str]) -> None:
        """The buffers of a call are in these segments, as far as there was room; the others go as frames."""
        submission: Submission[Promise] = copies.call
        unused = dict(segments)
        is_wanted = not submission.accepted and submission.open > 0
        for blob in copies.blobs:
            is_new = blob.keep and blob.blob_id not in self._kept.segments and blob.blob_id in unused
            if is_new and (is_wanted or self._kept.is_followed(blob.blob_id)):
                self._kept.segments[blob.blob_id] = unused.pop(blob.blob_id)
        for ready in self._kept.end(submission, copies.blobs):
            ready.copied = True
            self._line.on_copied(ready)
        if is_wanted:
            submission.blobs = [
                blob if blob.segment or blob.keep else blob._replace(segment=unused.pop(blob.blob_id, ""))
                for blob in submission.blobs
            ]
        self._unused_segments.extend(unused.values())  # it was copied twice, or has ended meanwhile

    def take_unused_segments(self) -> list[str]:
        """Segments that the controller has never heard of and will not."""
        unused, self._unused_segments = self._unused_segments, []
        return unused

    def unaccepted_segments(self) -> set[str]:
        """Where the buffers of calls are that the controller may not have heard of."""
        kept = {name for blob, name in self._kept.segments.items() if blob not in self._uploaded}
        return kept | {
            blob.segment for submission in self._tasks.values() for blob in submission.blobs if blob.segment
        }

    def on_freed(self, segments: Sequence[str]) -> None:
        """The controller has said that nobody will be given these any more."""
        self._kept.on_freed(segments)

    def _is_to_share(self, blob: Blob) -> bool:
        if blob.segment or (blob.keep and self._is_there(blob.blob_id)):
            return False
        return blob.size_bytes >= self.shared_from_bytes > 0

    def _is_there(self, kept: BlobId) -> bool:
        return kept in self._uploaded or kept in self._kept.segments

    def _has_to_wait(self, submission: Submission[Promise]) -> bool:
        """Put a call into the line if its buffers have to be copied, or those of a call before it."""
        to_copy = [] if submission.copied else [*filter(self._is_to_share, submission.blobs)]
        in_order = bool(submission.call.engines)
        if not to_copy and not (in_order and self._line.holds_order):
            return False
        submission.copying = True
        self._line.add(submission, in_order=in_order, to_copy=bool(to_copy))
        if to_copy and (own := self._kept.begin(submission, to_copy)):
            self._to_copy.append(Copies(submission, own))
        return True

    def _next_to_say(self) -> Iterator[Submission[Promise]]:
        """Calls whose turn it is, counted against the credit."""
        for submission in self._line.take_ready() if len(self._line) else ():
            submission.copying = False
            submission.has_left = True
            yield submission
        while self._queued and self._has_credit():
            submission = self._queued.pop()
            submission.sent = True
            self._sent_tasks += submission.open
            self._sent_bytes += submission.size_bytes
            if not self._has_to_wait(submission):
                submission.has_left = True
                yield submission

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
        over: list[TaskId] = []
        for submission in self._next_to_say():
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
            if self._wishes or submission.open < len(submission.promises):
                tasks = [make_task_id(self.client, number) for number in submission.numbers]
                late.extend(tasks)
                over.extend(task for task in tasks if task - self._base not in self._tasks)  # not once more
        self._put(link, options, calls, weight, has_bulk)
        say(((task, ABORT) for task in over), link.put_after_bulk)
        if late:
            # A wish may come before its task when the task waits in the bulk lane: it goes the same way.
            self._wishes.say(late, link.put_after_bulk)

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

    def _upload(self, submission: Submission[Promise], link: Link) -> bool:
        """Queue the blobs that the controller lacks. True if the call must not overtake the bulk lane."""
        options = submission.options
        depends = options.after is not None or options.follow is not None  # and comes behind these
        in_bulk = depends or bool(
            submission.call.blobs
        )  # a kept one may still be there, put by an earlier call
        for blob in submission.blobs:
            if blob.keep:
                if blob.blob_id in self._uploaded:
                    in_bulk = in_bulk or len(blob.data) > INLINE_LIMIT
                    continue
                self._uploaded.add(blob.blob_id)
            segment = self._kept.segments.get(blob.blob_id, "") if blob.keep else blob.segment
            if segment and self._is_lent(segment):
                link.put(ShareBlob(blob.blob_id, blob.size_bytes, blob.keep, segment))
                continue
            in_bulk = link.put_blob(cut_blob(blob.blob_id, blob.data, keep=blob.keep)) or in_bulk
        return in_bulk

    def _put(
        self, link: Link, options: TaskOptions | None, calls: list[Call], weight: int, has_bulk: bool
    ) -> None:
        if options is None or not calls:
            return
        # What is addressed to engines runs there in the order in which it was called.
        in_order = any(call.engines for call in calls)
        put = link.put_after_bulk if has_bulk else link.put
        put(Submit(options, calls), weight, in_order=in_order)

    def _promise(self, submission: Submission[Promise], task: TaskId) -> Promise:
        return submission.promises[task - self._base - submission.call.number]

    def _accept(self, submission: Submission[Promise]) -> None:
        submission.accepted = True
        submission.blobs = ()  # the controller holds them now

    def _requeue(self, submissions: list[Submission[Promise]], missing: Container[BlobId]) -> None:
        for submission in submissions:
            lost = [blob.segment for blob in submission.blobs if blob.segment and blob.blob_id in missing]
            if lost:  # the controller cannot use them: frames, the next time
                self._unused_segments.extend(lost)
                submission.blobs = [
                    blob._replace(segment="") if blob.segment in lost else blob for blob in submission.blobs
                ]
            submission.sent = False
            submission.asked_for = True
            self._sent_tasks -= submission.open
            self._sent_bytes -= submission.size_bytes
        # The questions of one batch come one by one: what they ask for goes back to where it was.
        self._queued.put_back(submissions)

    def _close(self, submission: Submission[Promise], result: TaskResult) -> tuple[Promise, TaskResult]:
        del self._tasks[result.task - self._base]
        if self._wishes:
            self._wishes.forget(result.task)
        self._finished += 1
        submission.open -= 1
        if submission.sent:
            self._sent_tasks -= 1
            if not submission.open:
                self._sent_bytes -= submission.size_bytes
        elif not submission.open:
            self._unused_segments.extend(blob.segment for blob in submission.blobs if blob.segment)
        return self._promise(submission, result.task), result

    def _lose(self, submission: Submission[Promise], detail: str) -> list[tuple[Promise, TaskResult]]:
        return [
            self._close(
                submission, TaskResult(make_task_id(self.client, number), Status.REFUSED, detail=detail)
            )
            for number in submission.numbers
            if number in self._tasks
        ]

    def check(self) -> None:
        """Assert every invariant."""
        submissions = list(dict.fromkeys(self._tasks.values()))
        queued = list(self._queued)
        self._queued.check()
        sent = [submission for submission in submissions if submission.sent]
        assert self._sent_tasks == sum(submission.open for submission in sent)
        assert self._sent_bytes == sum(submission.size_bytes for submission in sent)
        assert {id(submission) for submission in submissions} == {
            id(submission) for submission in (*sent, *queued)
        }
        assert len(self._line) == sum(submission.copying for submission in submissions)
        self._wishes.check(self.outstanding())
