"""The machines of one client together: what the controller says, sorted by whom it concerns.

No socket, no thread: the session calls in with its lock held, and acts on the `News` without it. Records that
are to be said are put on the link that comes as an argument; where there is none, nobody is there to hear
them, and the next welcome says them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from enginery.client.contract import AnswerRecord, AnyAnswer, FetchedCalls, Promise
from enginery.client.known_engines import KnownEngines
from enginery.client.news import News
from enginery.client.questions import AskedFuture, Question, Questions
from enginery.client.writing import Writing
from enginery.core.following import Following
from enginery.core.ledger import Ledger
from enginery.ids import BlobId, ClientId, TaskId
from enginery.protocol.assembly import BlobCache
from enginery.protocol.codec import Buffer, Unsendable
from enginery.protocol.link import RECORD_BYTES, Link
from enginery.protocol.messages import (
    Accepted,
    Answer,
    AskResults,
    CallsAnswer,
    ClientHello,
    ClientWelcome,
    Data,
    Display,
    EnginesChanged,
    Finished,
    FreeSegments,
    MemoryUse,
    Output,
    Progress,
    PutBlob,
    Record,
    Resend,
    ResultsAnswer,
    ShareBlob,
    Submit,
    TaskResult,
    ToClient,
    Versions,
)
from enginery.transport.footprint import measure
from enginery.transport.shared_memory import SegmentGone
from enginery.transport.sharing import LEAST_BYTES, Sharing

NAMES_BLOBS = Finished | AnswerRecord


class Endings(NamedTuple):
    """What ends with a session."""

    calls: list[tuple[Promise, TaskResult]]
    followed: list[TaskResult]
    questions: list[Question]


class ClientState:
    """All that a session knows beside its connection."""

    def __init__(self, client: ClientId, sharing: Sharing) -> None:
        self._client = client
        self._sharing = sharing
        self._can_map = True
        self.has_missed = False  # a shared blob could not be mapped: all of this epoch comes again, as frames
        self.ledger: Ledger[Promise] = Ledger(client, is_lent=sharing.is_lent)
        self.unsendable: list[Unsendable] = []
        self.engines = KnownEngines()
        self.questions = Questions()
        self._following: Following[Promise] = Following()
        self._writing = Writing()
        self._blobs = BlobCache()

    def __repr__(self) -> str:
        return f"<ClientState: {self.ledger!r}, {self._following!r}, {self.questions!r}>"

    def promise(self, task: TaskId) -> Promise | None:
        """A promise of a task that this client has sent or follows, until it has ended or a moment longer."""
        promises = self._open_promises(task) or self._writing.ended(task)
        return promises[0] if promises else None

    def hello(self, secret: bytes, versions: Versions, pid: int) -> ClientHello:
        """What to begin an epoch with."""
        self.has_missed = False
        pool = self._sharing.name if self._can_map else ""
        self.ledger.shared_from_bytes = LEAST_BYTES if pool else 0
        unaccepted = self.ledger.unaccepted_segments()
        lent = [name for name in self._sharing.lent() if name not in unaccepted]
        again = self.ledger.sent_again()
        return ClientHello(self._client, secret, versions, pid, self.ledger.received, pool, lent, again)

    def release_unused(self) -> None:
        """Take back what was copied for calls that have ended meanwhile, or was copied twice."""
        unused = self.ledger.take_unused_segments()
        if unused:
            self._sharing.release(unused)

    def memory_use(self, *, free: bool) -> MemoryUse:
        if free:
            self._sharing.trim()
        pool = self._sharing.statistics()
        resident, proportional = measure()
        return MemoryUse(
            blobs=self.ledger.held_bytes,
            results=self._blobs.total_bytes,
            lent=pool.lent_bytes,
            idle=pool.total_bytes - pool.lent_bytes,
            resident=resident,
            proportional=proportional,
        )

    # ------------------------------------------------------------ from the user

    def on_asked(self, make: Callable[[int], Record], link: Link | None) -> AskedFuture:
        question = self.questions.on_asked(make)
        if link is not None:
            link.put(question.record)
        return question.future

    def on_followed(self, promises: Mapping[TaskId, Promise], link: Link | None) -> None:
        portions = self._following.on_followed(promises, self._is_outstanding)
        if link is not None:
            self._ask_results(portions, link)

    # ------------------------------------------------------------ from the controller

    def on_record(self, record: ToClient, frame: Buffer | None, link: Link, news: News) -> None:
        if frame is not None:
            assert isinstance(record, PutBlob)
            self._blobs.on_piece(record, frame)
        elif isinstance(record, ShareBlob):
            self._on_shared(record)
        elif isinstance(record, FreeSegments):
            self.ledger.on_freed(record.segments)
            self._sharing.release(record.segments)
        elif self.has_missed and isinstance(record, NAMES_BLOBS):
            return  # it comes again, after the hello
        elif isinstance(record, Finished):
            self._on_finished(record, news)
        elif isinstance(record, (Output, Display, Data, Progress)):
            for promise in self._writing.on_said(record, self._open_promises(record.task)):
                promise.on_said(record)
                news.listeners[promise] = None
        elif isinstance(record, Accepted):
            self.ledger.on_accepted(record.ranges)
            news.has_accepted = True
        elif isinstance(record, Resend):
            self.ledger.on_resend(record.numbers, record.blobs)
        elif isinstance(record, EnginesChanged):
            self.engines.on_changed(record)
            news.changes.append(record)
        elif isinstance(record, AnswerRecord):
            self._on_answer(record, news)
        elif isinstance(record, ClientWelcome):
            self._on_welcome(record, link, news)

    def _on_shared(self, record: ShareBlob) -> None:
        try:
            data = self._sharing.read(record.segment, record.size_bytes)
        except (SegmentGone, OSError):
            self._can_map = False
            self.has_missed = True
        else:
            self._blobs.put(record.blob, data, keep=record.keep)

    def _on_finished(self, record: Finished, news: News) -> None:
        news.deliveries.append(record)
        news.results.extend(self.ledger.on_finished(record.first, record.results))
        for result in record.results:
            if result.blobs:
                news.buffers[result.task] = list(self._take_blobs(result.blobs).values())

    def _on_answer(self, answer: AnswerRecord, news: News) -> None:
        if isinstance(answer, ResultsAnswer):
            for result in answer.results:
                if result.blobs:
                    news.buffers[result.task] = list(self._take_blobs(result.blobs).values())
        if not self._following.is_asked(answer.request):
            whole = self.questions.on_answer(answer)
            if whole is not None:
                news.answers.append((whole[0], self._with_blobs(whole[1])))
        elif isinstance(answer, ResultsAnswer):
            news.others.extend(answer.results)
            if answer.is_last:
                self._following.on_answered(answer.request)
        elif isinstance(answer, Answer):
            news.others.extend(self._following.on_refused(answer.request, answer.error))

    def _on_welcome(self, welcome: ClientWelcome, link: Link, news: News) -> None:
        change = self.engines.on_welcome(welcome.engines)
        if change is not None:
            news.changes.append(change)
        self._blobs.restart()
        for record in self.questions.on_welcome():
            link.put(record)
        news.add_ended(self.ledger.on_welcome(welcome, link))
        self._ask_results(self._following.on_welcome(self._is_outstanding), link)

    def take_unsendable(self, news: News) -> None:
        """What was on the link and cannot be sent: what it was about ends here."""
        while self.unsendable:
            error = self.unsendable.pop()
            if isinstance(error.record, Submit):
                news.add_ended(self.ledger.on_unsendable(error.record.calls, str(error)))
            elif (number := getattr(error.record, "request", None)) is not None:
                self._on_answer(Answer(number, str(error)), news)

    # ------------------------------------------------------------ from those who act on the news

    def on_fulfilled(self, news: News) -> list[tuple[Promise, TaskResult]]:
        """This client's own calls have their results. Returns who follows the tasks that have ended.

        Whoever follows one of them from now on is told by the controller.
        """
        for delivery in news.deliveries:
            self.ledger.on_taken(delivery.first, delivery.results)
        followers = self._following.on_ended(news.ended()) if self._following else []
        self._writing.on_ended([*news.results, *followers] if followers else news.results)
        return followers

    def on_told(self, told: Iterable[tuple[Promise, TaskResult]]) -> None:
        """These followers have their results."""
        self._following.on_told(told)

    def on_closed(self, detail: str) -> Endings:
        """The session is over, whatever becomes of its tasks at the controller."""
        return Endings(
            self.ledger.on_closed(detail), self._following.on_closed(detail), self.questions.on_closed()
        )

    # ------------------------------------------------------------ inside

    def _is_outstanding(self, task: TaskId) -> bool:
        return self.ledger.promise(task) is not None

    def _open_promises(self, task: TaskId) -> list[Promise]:
        """Those of an unfinished task: its call's, and those of its followers."""
        own, followers = self.ledger.promise(task), self._following.promises(task)
        return followers if own is None else [own, *followers]

    def _ask_results(self, portions: Iterable[list[TaskId]], link: Link) -> None:
        for tasks in portions:
            number = self.questions.new_number()
            self._following.on_asked(number, tasks)
            link.put(AskResults(number, tasks), RECORD_BYTES + 9 * len(tasks))

    def _with_blobs(self, answer: AnswerRecord) -> AnyAnswer:
        if not isinstance(answer, CallsAnswer):
            return answer
        needed = [blob for call in answer.calls for blob in (call.options.function, *call.blobs)]
        return FetchedCalls(answer, self._take_blobs(needed))

    def _take_blobs(self, blobs: Iterable[BlobId]) -> dict[BlobId, Buffer]:
        found = {blob: data for blob in blobs if (data := self._blobs.get(blob)) is not None}
        for blob in found:
            self._blobs.drop(blob)
        return found
