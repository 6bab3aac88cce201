"""What a controller that goes on with the work of another one waits for, and what it finds on its way.

Each engine of the former life is *expected* until it has said which tasks it has, over either of its
connections, or is known to be dead, or `GRACE_S` have passed: then it is given up. As long as one is expected
nothing is handed out (`reclaiming`).

An engine may have a task that the history has never heard of: a call that came in the last moment. Its client
will send it again. Until then the task is an *orphan*: it is kept in mind where it is and, if it has ended,
what came of it. A client's hello says which calls it will send again, so that an orphan nobody will ask for
goes at once. A result that only this controller's memory has is not acknowledged to its engine meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from enginery.ids import BlobId, ClientId, EngineId, EngineKey, TaskId, task_client, task_number
from enginery.protocol.messages import EngineResult, Ranges, Status
from enginery.protocol.ranges import NumberSet

GRACE_S = 30.0
"""How long after a restart engines are waited for that were there before it."""
ORPHAN_S = 600.0
"""How long a client is waited for whose calls engines have had."""


class Orphan:
    """A task that an engine has, or had, and whose call is not here."""

    __slots__ = ("attempt", "cause", "engine", "number", "result", "status")

    def __init__(self, engine: EngineId, attempt: int) -> None:
        self.engine = engine
        self.attempt = attempt
        self.result: EngineResult | None = None
        self.number = 0  # of the result
        self.status: Status | None = None  # if it is lost with its engine,
        self.cause = ""  # and why

    def __repr__(self) -> str:
        return f"<Orphan on engine {self.engine}, attempt {self.attempt}>"


class Restoring:
    """The engines that are expected, and the orphans. A controller that begins anew has none of either."""

    def __init__(self) -> None:
        self._expected: dict[EngineKey, EngineId] = {}
        self._unheard: set[EngineId] = set()
        self._orphans: dict[TaskId, Orphan] = {}
        self._again: dict[ClientId, NumberSet] = {}
        self._deadline: float | None = None
        self._orphans_until: float | None = None
        self.placed: set[TaskId] = set()
        """Tasks that the history has seen in an engine, or leave one."""
        self.results: dict[TaskId, tuple[BlobId, ...]] = {}
        """What is held for results that their clients may not have, until the history has said them again."""
        self.lost: Status | None = None
        """How an engine has gone of which nobody knows what it had begun: died, or given up."""

    def __repr__(self) -> str:
        return f"<Restoring: {len(self._expected)} engines expected, {len(self._orphans)} orphans>"

    def begin(self, engines: dict[EngineKey, EngineId], placed: Iterable[TaskId], *, now: float) -> None:
        """These engines were there."""
        self._expected.update(engines)
        self._unheard.update(engines.values())
        self.placed.update(placed)
        self._deadline = now + GRACE_S
        self._orphans_until = now + ORPHAN_S

    # ------------------------------------------------------------ engines

    @property
    def is_over(self) -> bool:
        """Whether every engine is accounted for."""
        return not self._expected

    def expects(self, key: EngineKey) -> bool:
        return key in self._expected

    def on_accounted(self, key: EngineKey) -> None:
        """It has said what it has, or is gone."""
        self._expected.pop(key, None)

    def on_unproven(self, status: Status) -> None:
        """An engine is gone, and may have begun what nobody else has."""
        if self.lost is not Status.ENGINE_LOST:
            self.lost = status

    def on_first_hello(self, engine: EngineId) -> bool:
        """An engine's task connection has said hello: whether for the first time in this life."""
        if engine not in self._unheard:
            return False
        self._unheard.discard(engine)
        return True

    def close(self) -> None:
        self._deadline = None
        self.placed.clear()
        if self.lost is None:
            self._again.clear()

    # ------------------------------------------------------------ orphans

    @property
    def is_watchful(self) -> bool:
        """Whether calls that come have to be looked at."""
        return bool(self._orphans) or self.lost is not None

    @property
    def has_orphans(self) -> bool:
        return bool(self._orphans)

    def on_client_hello(self, client: ClientId, again: Ranges) -> list[Orphan]:
        """These calls it will send again. Returns the orphans that nobody will ask for."""
        if self._orphans_until is None:
            return []
        numbers = self._again[client] = NumberSet.from_ranges(again)
        unwanted = [
            task for task in self._orphans if task_client(task) == client and task_number(task) not in numbers
        ]
        return [self._orphans.pop(task) for task in unwanted]

    def may_come_again(self, task: TaskId) -> bool:
        """Whether its client may send this call again, or has to be waited for."""
        numbers = self._again.get(task_client(task))
        return numbers is None or task_number(task) in numbers

    def comes_again(self, task: TaskId) -> bool:
        """Whether its client has said that it had sent this call before."""
        numbers = self._again.get(task_client(task))
        return numbers is not None and task_number(task) in numbers

    def on_found(self, task: TaskId, engine: EngineId, attempt: int) -> None:
        """An engine has this task, and nobody knows of it."""
        known = self._orphans.get(task)
        if known is None or known.attempt < attempt:
            self._orphans[task] = Orphan(engine, attempt)

    def on_result(self, engine: EngineId, number: int, result: EngineResult) -> bool:
        """An engine has ended a task that is not here. Whether that is to be kept."""
        orphan = self._orphans.get(result.task)
        if orphan is None or (orphan.engine, orphan.attempt) != (engine, result.attempt) or orphan.result:
            return False
        orphan.result, orphan.number = result, number
        return True

    def safe_below(self, engine: EngineId, below: int) -> int:
        """Results of this engine below that number need not be kept there."""
        if not self._orphans:
            return below
        kept = [one.number for one in self._orphans.values() if one.engine == engine and one.result]
        return min([below, *kept])

    def on_engine_gone(
        self, engine: EngineId, *, status: Status, cause: str, started: Collection[TaskId] | None
    ) -> None:
        """Its orphans that have begun are lost with it, unless their results are here."""
        for task, orphan in list(self._orphans.items()):
            if orphan.engine == engine and orphan.result is None and orphan.status is None:
                if started is None or task in started:
                    orphan.status, orphan.cause = status, cause
                else:
                    del self._orphans[task]

    def find(self, task: TaskId) -> Orphan | None:
        return self._orphans.get(task)

    def take(self, task: TaskId) -> Orphan | None:
        """Its call has come."""
        return self._orphans.pop(task, None)

    def on_client_gone(self, client: ClientId) -> list[Orphan]:
        self._again.pop(client, None)
        gone = [task for task in self._orphans if task_client(task) == client]
        return [self._orphans.pop(task) for task in gone]

    # ------------------------------------------------------------ time

    def next_deadline(self) -> float | None:
        deadlines = [self._deadline, self._orphans_until if self._orphans else None]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def take_overdue(self, *, now: float) -> list[EngineKey]:
        """Engines that are given up."""
        if self._deadline is None or now < self._deadline:
            return []
        return list(self._expected)

    def take_old_orphans(self, *, now: float) -> list[Orphan]:
        """Orphans whose clients are not waited for any longer."""
        if self._orphans_until is None or now < self._orphans_until:
            return []
        old = list(self._orphans.values())
        self._orphans.clear()
        return old

    def check(self, engines: Collection[EngineId]) -> None:
        assert set(self._expected.values()) <= set(engines)
        assert self._unheard <= set(engines)


def blobs_of(orphan: Orphan) -> tuple[BlobId, ...]:
    """What is held for its sake."""
    return () if orphan.result is None else orphan.result.blobs
