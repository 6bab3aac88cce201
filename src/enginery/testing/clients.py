"""A client without threads: the real dialer and the real ledger, and calls whose outcomes can be judged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from enginery.core.ledger import Ledger
from enginery.core.submissions import Blob
from enginery.core.wishes import ABORT, Wish
from enginery.ids import BlobId, ClientId, EngineId, TaskId, make_task_id, task_number
from enginery.protocol import codec
from enginery.protocol.assembly import BlobCache
from enginery.protocol.codec import Buffer
from enginery.protocol.messages import (
    Accepted,
    Answer,
    ClientHello,
    ClientWelcome,
    EngineInfo,
    EnginesChanged,
    Finished,
    Goodbye,
    Kind,
    PutBlob,
    Record,
    Resend,
    Status,
    StatusAnswer,
    TaskOptions,
    TaskResult,
    ToClient,
)
from enginery.testing.clock import VirtualClock
from enginery.testing.conversation import Conversation
from enginery.testing.deeds import Deed, function_blob
from enginery.testing.engines import VERSIONS
from enginery.testing.network import VirtualNetwork
from enginery.transport.channel import Role

REPORT_S = 0.005
"""Quiet after which the controller is told what has arrived, as the session's background thread does."""


class Outcome:
    """What has become of one task: the promise that the ledger keeps for it."""

    __slots__ = (
        *("arguments", "blob", "candidates", "deed", "endings"),
        *("limit_s", "result", "retries", "target", "task"),
    )

    def __init__(
        self,
        deed: Deed,
        arguments: Sequence[bytes],
        *,
        retries: int,
        candidates: tuple[int, ...],
        target: EngineId | None,
        limit_s: float,
    ) -> None:
        self.task = TaskId(0)
        self.deed = deed
        self.arguments = arguments
        self.retries = retries
        self.candidates = candidates
        self.target = target  # the engine it is addressed to; None = balanced
        self.limit_s = limit_s  # negative = none
        self.result: TaskResult | None = None
        self.blob = b""
        self.endings = 0

    def __repr__(self) -> str:
        status = "open" if self.result is None else self.result.status.name.lower()
        return f"<Outcome of task {task_number(self.task)}: {status}>"

    @property
    def status(self) -> Status | None:
        return None if self.result is None else self.result.status

    def check(self) -> None:
        """Assert that a result with a value has the right one."""
        if self.result is not None and self.result.status is Status.OK:
            assert self.result.payload == self.deed.answer(self.arguments), self
            assert self.blob == self.deed.blob(), self


class ScriptedClient:
    """One client. `call` submits; outcomes are in `outcomes`, by task number."""

    def __init__(self, name: str, network: VirtualNetwork, clock: VirtualClock, *, client: ClientId) -> None:
        self.name = name
        self.client = client
        self.ledger: Ledger[Outcome] = Ledger(client)
        self.outcomes: dict[int, Outcome] = {}
        self.engines: dict[EngineId, EngineInfo] = {}
        self.answers: list[Answer | StatusAnswer] = []
        self.is_alive = True
        self._clock = clock
        self._blobs = BlobCache()
        self._options: list[TaskOptions] = []
        self._buffers = 0
        self._report_at: float | None = None
        self.conversation: Conversation[ToClient] = Conversation(
            network.dial(Role.CLIENT, name), clock, codec.to_client(), self._hello
        )
        self.conversation.begin()

    def __repr__(self) -> str:
        return f"<ScriptedClient {self.name}, {self.ledger!r}>"

    # ------------------------------------------------------------ the user

    def call(
        self,
        function: str = "f",
        *,
        engines: tuple[int, ...] = (),
        candidates: tuple[int, ...] = (),
        retries: int = 0,
        argument_bytes: int = 0,
        duration_s: float = 0.01,
        raises: int = 0,
        result_bytes: int = 0,
        unmet: tuple[int, ...] = (),
        manner: str = "",
        cleanup_s: float = 0.0,
        **more: Any,
    ) -> list[Outcome]:
        """Submit one call: one balanced task, or one for each engine named. The value is made here.

        `more` are further fields of `TaskOptions`.
        """
        blob, source = function_blob(function)
        options = self._options_for(
            TaskOptions(
                Kind.CALL,
                blob,
                function,
                tuple(map(EngineId, candidates)),
                retries=retries,
                **more,
            )
        )
        blobs = [Blob(blob, source, keep=True)]
        arguments: list[bytes] = []
        if argument_bytes:
            self._buffers += 1
            data = self._buffers.to_bytes(4, "big") * (argument_bytes // 4)
            arguments.append(data)
            blobs.append(
                Blob(
                    BlobId(self.client.to_bytes(8, "big") + self._buffers.to_bytes(8, "big")),
                    data,
                    keep=False,
                )
            )
        refusing = tuple(map(EngineId, unmet))
        value = f"v{len(self.outcomes)}"
        deed = Deed(value, duration_s, raises, result_bytes, refusing, manner, cleanup_s)
        targets = tuple(map(EngineId, engines))
        outcomes = [
            Outcome(
                deed,
                arguments,
                retries=retries,
                candidates=candidates,
                target=target,
                limit_s=more.get("time_limit_s", -1.0),
            )
            for target in targets or (None,)
        ]
        task = self.ledger.on_submitted(options, deed.encode(), blobs, outcomes, targets)
        for offset, outcome in enumerate(outcomes):
            outcome.task = TaskId(task + offset)
            self.outcomes[task_number(outcome.task)] = outcome
        return outcomes

    def abort(self, numbers: Iterable[int]) -> None:
        tasks = [make_task_id(self.client, number) for number in numbers]
        self._end(self.ledger.on_wish(tasks, ABORT, self.conversation.link))

    def cancel(self, numbers: Iterable[int], *, grace_s: float | None = None) -> None:
        tasks = [make_task_id(self.client, number) for number in numbers]
        self._end(self.ledger.on_wish(tasks, Wish(True, grace_s), self.conversation.link))

    def say(self, record: Record) -> None:
        """Ask or order something; answers gather in `answers`."""
        self.conversation.link.put(record)

    def leave(self) -> None:
        """End it on purpose; its tasks go on."""
        if self.conversation.is_bound:
            self.ledger.pump(self.conversation.link)
            self.ledger.report(self.conversation.link)
            self.conversation.link.put(Goodbye())
            self.conversation.send()
        self.kill()

    def kill(self) -> None:
        self.is_alive = False
        self.conversation.close(linger_s=0.5)

    @property
    def is_waiting(self) -> bool:
        return self.is_alive and self.ledger.outstanding_count > 0

    # ------------------------------------------------------------ the loop

    def next_deadline(self) -> float | None:
        if not self.is_alive:
            return None
        deadlines = [self.conversation.next_deadline(), self._report_at]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def turn(self) -> bool:
        """Do what there is to do now; False if there was nothing."""
        if not self.is_alive:
            return False
        conversation = self.conversation
        active = conversation.is_due()
        if active:
            for record, frame in conversation.receive():
                self._on_record(record, frame)
            conversation.keep_in_touch()
        if conversation.is_bound:
            self.ledger.pump(conversation.link)
            if self._report_at is not None and self._report_at <= self._clock.now():
                active = True
                self._report_at = None
                self.ledger.report(conversation.link)
        elif self._report_at is not None:
            self._report_at = None
        return conversation.send() or active

    def _on_record(self, record: ToClient, frame: Buffer | None) -> None:
        if isinstance(record, Finished):
            self._end(self.ledger.on_finished(record.first, record.results))
            self.ledger.on_taken(record.first, record.results)
            self._report_at = self._clock.now() + REPORT_S
        elif isinstance(record, PutBlob):
            assert frame is not None
            self._blobs.on_piece(record, frame)
        elif isinstance(record, Accepted):
            self.ledger.on_accepted(record.ranges)
        elif isinstance(record, Resend):
            self.ledger.on_resend(record.numbers, record.blobs)
        elif isinstance(record, ClientWelcome):
            self.engines = {info.engine: info for info in record.engines}
            self._blobs.restart()
            self._end(self.ledger.on_welcome(record, self.conversation.link))
        elif isinstance(record, EnginesChanged):
            for left in record.left:
                self.engines.pop(left.engine, None)
            self.engines.update((info.engine, info) for info in record.joined)
        elif isinstance(record, (Answer, StatusAnswer)):
            self.answers.append(record)

    def _end(self, ended: Iterable[tuple[Outcome, TaskResult]]) -> None:
        for outcome, result in ended:
            outcome.endings += 1
            outcome.result = result
            for blob in result.blobs:
                data = self._blobs.get(blob)
                assert data is not None, f"{result} came before its blobs"
                outcome.blob = bytes(data)
                self._blobs.drop(blob)

    def _options_for(self, options: TaskOptions) -> TaskOptions:
        # One object for equal options, so that the ledger can group calls.
        for known in self._options:
            if known == options:
                return known
        self._options.append(options)
        return options

    def _hello(self) -> ClientHello:
        again = self.ledger.sent_again()
        return ClientHello(self.client, b"secret", VERSIONS, 4712, self.ledger.received, again=again)
