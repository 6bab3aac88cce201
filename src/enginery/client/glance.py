"""What there is to see of a cluster: what its client knows, and one cheap question to the controller.

What is displayed must never hang, whatever has become of the cluster: nobody waits longer than `ASK_S`, and
what is closed, forked or does not answer says so in its place.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future

from enginery.client.contract import AnyAnswer, TaskSession
from enginery.client.displayed import Displayed
from enginery.client.snapshots import ClusterSnapshot, EngineSnapshot, TaskCounts
from enginery.errors import EngineryError, ForkedClientError
from enginery.ids import EngineId
from enginery.protocol.messages import AskStatus, EngineInfo, EngineStatus, StatusAnswer

ASK_S = 0.5
ASK_AGAIN_S = 1.0
"""Between questions for a display that changes."""


class Glance:
    """The controller's state, asked in passing. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: Future[AnyAnswer] | None = None
        self._asked_at = 0.0
        self._last: StatusAnswer | None = None

    def __repr__(self) -> str:
        return f"<Glance{'' if self._last is None else f' at {self._last.cluster!r}'}>"

    def look(self, session: TaskSession, *, may_wait: bool) -> tuple[StatusAnswer | None, str]:
        """The controller's state, or None and a sentence about that.

        Without waiting it is the state as it was known last, and is asked for so that the next one is newer.
        """
        try:
            return self._ask(session) if may_wait else (self._glance(session), "")
        except EngineryError as error:  # closed, in the middle of another step
            return None, str(error)

    def _ask(self, session: TaskSession) -> tuple[StatusAnswer | None, str]:
        future = session.ask(_question)
        session.wait_until(future.done, ASK_S)
        answer = _answer_in(future)
        if answer is None:
            future.cancel()
            return None, session.end_reason or f"the controller has not answered within {ASK_S:g} s"
        with self._lock:
            self._last = answer
        return answer, ""

    def _glance(self, session: TaskSession) -> StatusAnswer | None:
        with self._lock:
            if self._asked is not None and (answer := _answer_in(self._asked)) is not None:
                self._last, self._asked = answer, None
            now = time.monotonic()
            is_due = now - self._asked_at >= ASK_AGAIN_S
            if is_due:
                self._asked_at = now
                if self._asked is not None:
                    self._asked.cancel()
        if is_due:
            self._asked = session.ask(_question)  # without the lock, see `Session`
        return self._last


def _question(number: int) -> AskStatus:
    return AskStatus(number, whole=True, ask_hosts=False)


def _answer_in(future: Future[AnyAnswer]) -> StatusAnswer | None:
    if not future.done() or future.cancelled() or future.exception() is not None:
        return None
    answer = future.result()
    return answer if isinstance(answer, StatusAnswer) else None


class DisplayedClient(Displayed):
    """The part of a `Client` that shows its state."""

    name: str
    _session: TaskSession
    _pid: int
    _glance: Glance

    def _snapshot(self, *, may_wait: bool, among: Collection[int] | None = None) -> ClusterSnapshot:
        """What there is to see of the cluster, or of some of its engines."""
        name = f"of {self.name!r}" if self.name else ""
        session = self._session
        if self._pid != os.getpid():
            forked = str(ForkedClientError(self._pid, os.getpid()))
            return ClusterSnapshot("Client", name, "closed", note=forked)
        answer, why_not = self._glance.look(session, may_wait=may_wait)
        if session.closed:
            return ClusterSnapshot("Client", name, "closed", note=session.end_reason)
        is_whole = among is None
        return ClusterSnapshot(
            "Client",
            name,
            engines=_engines(session.engines(), answer, among),
            counts=_counts(answer),
            outstanding=len(session.outstanding()),
            uptime_s=answer.uptime_s if is_whole and answer is not None else None,
            clients=answer.clients if is_whole and answer is not None else None,
            note=why_not,
        )

    def _live_session(self) -> TaskSession | None:
        return None if self._session.closed or self._pid != os.getpid() else self._session

    def _is_moving(self) -> bool:
        return bool(self._session.outstanding())


def _engines(
    engines: Mapping[EngineId, EngineInfo], answer: StatusAnswer | None, among: Collection[int] | None
) -> tuple[EngineSnapshot, ...]:
    """The engines that are there, with what the controller says of them."""
    states = {} if answer is None else {status.engine: status for status in answer.engines}
    found = []
    for engine, info in sorted(engines.items()):
        if among is not None and engine not in among:
            continue
        status = states.get(engine)
        if status is None:
            found.append(EngineSnapshot(int(engine), info.host))
            continue
        found.append(EngineSnapshot(int(engine), info.host, status.state, _queued(status), status.completed))
    return tuple(found)


def _counts(answer: StatusAnswer | None) -> TaskCounts | None:
    """All tasks of a cluster."""
    if answer is None:
        return None
    tasks = answer.tasks
    running = sum(bool(status.task) for status in answer.engines)
    unfinished = tasks.waiting + tasks.ready + tasks.sent + tasks.running
    return TaskCounts(
        unfinished - running, running, tasks.done, tasks.failed + tasks.impossible, tasks.cancelled
    )


def _queued(status: EngineStatus) -> int:
    """Tasks that wait for an engine, here and there."""
    return status.queue + max(status.in_flight - 1, 0)
