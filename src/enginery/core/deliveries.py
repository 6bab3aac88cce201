"""Results on their way to one client: numbered, sent within a window, held within a bound until it has them.

A delivery is *waiting* (not sent in this connection), then *under way*, then taken. After a new hello
everything that was not taken is waiting again; the client ignores what it has already.

A client that does not take its results gets no more memory than `HeldLimits` say. What comes beyond is
*parked*: of a parked delivery only the task's id is kept, all else is in the history, which is asked for the
next ones when there is room again. A result whose text has not all been said is parked too, with its payload:
the history has that text, once all of it has come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Container, Iterator
from typing import NamedTuple

from enginery.core.watching import Saying, saying_size
from enginery.ids import TaskId
from enginery.protocol.messages import TaskResult, text_size

WINDOW_BYTES = 64 << 20
RESULTS_PER_RECORD = 1000
BYTES_PER_RECORD = 1 << 18
FETCHED_TASKS = 500
FETCHED_BYTES = 32 << 20
"""At a time; one result is fetched whatever its size."""


class HeldLimits(NamedTuple):
    """Bytes of results that are held for clients that have not taken them; one more result may be above."""

    of_one: int = 256 << 20  # of memory, for one client
    of_all: int = 1 << 30  # for all clients together; beyond, each has `least` at most
    least: int = 4 << 20
    shared: int = 1 << 30  # of shared memory, for one client


class Held:
    """What all clients together have not taken."""

    def __init__(self, limits: HeldLimits | None = None) -> None:
        self.limits = limits or HeldLimits()
        self.memory_bytes = 0

    def __repr__(self) -> str:
        return f"<Held {self.memory_bytes} bytes>"

    @property
    def share(self) -> int:
        """What one client may hold in memory now."""
        return self.limits.of_one if self.memory_bytes < self.limits.of_all else self.limits.least


class Delivery(NamedTuple):
    """A result, what is said before it, and what it weighs."""

    result: TaskResult
    said: list[Saying] = []  # noqa: RUF012 - never changed
    memory_bytes: int = 0
    shared_bytes: int = 0


class Parked(NamedTuple):
    """A delivery that the history has to complete; with a payload, only its text is missing."""

    task: TaskId
    size_bytes: int
    delivery: Delivery | None = None


def result_size(result: TaskResult) -> int:
    """What a result weighs in a header."""
    texts = text_size(result.stdout) + text_size(result.stderr) + text_size(result.detail)
    reported = 0 if result.report is None else text_size(result.report.text)
    return 96 + len(result.payload) + texts + reported


class Deliveries:
    """The results of one client, from their end to the client's word that they have arrived."""

    __slots__ = (
        "_fetching",
        "_first",
        "_held",
        "_incomplete",
        "_owed",
        "_parked",
        "_under_way",
        "_under_way_bytes",
        "_unfetched",
        "_waiting",
        "memory_bytes",
        "shared_bytes",
        "window_bytes",
    )

    def __init__(self, held: Held | None = None, *, window_bytes: int = WINDOW_BYTES) -> None:
        self.window_bytes = window_bytes
        self._held = held or Held()
        self._first = 0  # number of the oldest delivery that is not taken
        self._under_way: deque[Delivery] = deque()
        self._under_way_bytes = 0
        self._waiting: deque[Delivery] = deque()
        self._parked: dict[TaskId, Parked] = {}  # in their order
        self._incomplete: dict[TaskId, Parked] = {}  # whose text has not all come
        self._fetching: dict[TaskId, Parked] = {}
        self._unfetched = 0  # parked without payload, the history has not answered for them
        self._owed: set[TaskId] = set()  # what the history has to keep: parked without payload and not taken
        self.memory_bytes = 0
        self.shared_bytes = 0

    def __len__(self) -> int:
        return len(self._under_way) + len(self._waiting) + self._parked_count

    @property
    def _parked_count(self) -> int:
        return len(self._parked) + len(self._incomplete) + len(self._fetching)

    def __repr__(self) -> str:
        parked = self._parked_count
        return (
            f"<Deliveries from {self._first}: {len(self._under_way)} under way, {len(self._waiting)} waiting"
            f"{f', {parked} parked' if parked else ''}>"
        )

    @property
    def next_number(self) -> int:
        """Of the next delivery that `take` will hand out."""
        return self._first + len(self._under_way)

    @property
    def is_full(self) -> bool:
        """Whether what comes now is to be parked."""
        return self._unfetched > 0 or self._is_over(1.0)

    def _all_parked(self) -> Iterator[Parked]:
        for queue in (self._fetching, self._parked, self._incomplete):
            yield from queue.values()

    def _is_over(self, part: float) -> bool:
        return (
            self.memory_bytes >= self._held.share * part
            or self.shared_bytes >= self._held.limits.shared * part
        )

    @property
    def owed(self) -> Collection[TaskId]:
        """What the history has to keep for this client."""
        return self._owed

    # ------------------------------------------------------------ in

    def add(self, delivery: Delivery) -> None:
        """This can be sent."""
        self._waiting.append(delivery)
        self._hold(delivery, 1)

    def park(
        self, task: TaskId, size_bytes: int, delivery: Delivery | None = None, *, is_incomplete: bool = False
    ) -> None:
        """This is to be fetched: all of it, or what was said before the result if that is given.

        `is_incomplete`: not before all of the task's text has come.
        """
        queue = self._incomplete if is_incomplete else self._parked
        queue[task] = Parked(task, size_bytes, delivery)
        if delivery is None:
            self._owed.add(task)
            self._unfetched += 1
        else:
            self._hold(delivery, 1)

    def is_parked(self, task: TaskId) -> bool:
        """Whether the history will say what this task has said."""
        return task in self._parked or task in self._incomplete

    def on_complete(self, task: TaskId) -> None:
        """All of a task's text has come, or is waited for no longer."""
        parked = self._incomplete.pop(task, None)
        if parked is not None:
            self._parked[task] = parked

    def on_hello(self, received: int, late: Container[TaskId] = ()) -> list[Delivery]:
        """The client is (back) here and has taken everything below `received`. Returns what it has taken.

        What its tasks have said may have been lost with the connection: the history says it before the
        results. Of those in `late` not all of it has come.
        """
        taken = self.on_received(received)
        untaken = [*self._under_way, *self._waiting]
        self._under_way, self._waiting = deque(), deque()
        self._under_way_bytes = 0
        parked, self._parked = self._parked, {}
        for delivery in untaken:
            self._hold(delivery, -1)
            if delivery.result.outputs and not delivery.said:
                task = delivery.result.task
                self.park(task, delivery.memory_bytes, delivery, is_incomplete=task in late)
            else:
                self.add(delivery)
        self._parked.update(parked)
        return taken

    def on_received(self, below: int) -> list[Delivery]:
        """The client has taken everything below this number: it need not be kept."""
        taken = []
        while self._first < below and self._under_way:
            delivery = self._under_way.popleft()
            self._under_way_bytes -= _weight(delivery)
            self._hold(delivery, -1)
            self._first += 1
            taken.append(delivery)
        return taken

    def settle(self, task: TaskId) -> bool:
        """A result was taken, or will not be: whether the history has kept it for this client."""
        if task not in self._owed:
            return False
        self._owed.remove(task)
        return True

    # ------------------------------------------------------------ out

    def take(self) -> Iterator[tuple[int, list[Delivery], int]]:
        """What may be sent now: (first number, deliveries, bytes in the header), in groups for one record.

        The results of a group all have blobs, or none has: those that have follow them in the bulk lane.
        """
        while self._waiting:
            first = self.next_number
            group: list[Delivery] = []
            weight = 0
            with_blobs = bool(self._waiting[0].result.blobs)
            while (
                self._waiting
                and bool(self._waiting[0].result.blobs) == with_blobs
                and len(group) < RESULTS_PER_RECORD
                and weight < BYTES_PER_RECORD
                and (self._under_way_bytes < self.window_bytes or not self._under_way)
            ):
                delivery = self._waiting.popleft()
                self._under_way.append(delivery)
                self._under_way_bytes += _weight(delivery)
                group.append(delivery)
                weight += result_size(delivery.result)
            if not group:
                return
            yield first, group, weight

    def next_to_fetch(self) -> list[TaskId]:
        """What the history is to be asked for now; `on_fetched` is to follow, until all is there."""
        has_some = bool(self._under_way or self._waiting)
        if self._fetching or not self._parked or (has_some and self._is_over(0.5)):
            return []
        size_bytes = 0
        for task, parked in self._parked.items():
            if len(self._fetching) >= FETCHED_TASKS or size_bytes >= FETCHED_BYTES:
                break
            self._fetching[task] = parked
            size_bytes += parked.size_bytes
        for task in self._fetching:
            del self._parked[task]
        return list(self._fetching)

    def fetched(self, task: TaskId) -> Parked | None:
        """The history has answered for this one; None if it was not asked for."""
        parked = self._fetching.pop(task, None)
        if parked is not None:
            if parked.delivery is None:
                self._unfetched -= 1
            else:
                self._hold(parked.delivery, -1)
        return parked

    def everything(self) -> list[Delivery]:
        """All that is held here."""
        parked = (one.delivery for one in self._all_parked() if one.delivery is not None)
        return [*self._under_way, *self._waiting, *parked]

    def clear(self) -> list[TaskId]:
        """Nothing of this will be delivered; returns what the history has kept for it."""
        for delivery in self.everything():
            self._hold(delivery, -1)
        for queue in (self._under_way, self._waiting, self._parked, self._incomplete, self._fetching):
            queue.clear()
        self._under_way_bytes = self._unfetched = 0
        owed, self._owed = self._owed, set()
        return sorted(owed)

    def _hold(self, delivery: Delivery, sign: int) -> None:
        self.memory_bytes += sign * delivery.memory_bytes
        self.shared_bytes += sign * delivery.shared_bytes
        self._held.memory_bytes += sign * delivery.memory_bytes

    def check(self) -> None:
        assert self._under_way_bytes == sum(map(_weight, self._under_way))
        everything = self.everything()
        assert self.memory_bytes == sum(delivery.memory_bytes for delivery in everything)
        assert self.shared_bytes == sum(delivery.shared_bytes for delivery in everything)
        unfetched = [one.task for one in self._all_parked() if one.delivery is None]
        assert len(unfetched) == self._unfetched
        assert set(unfetched) <= self._owed


def _weight(delivery: Delivery) -> int:
    return delivery.memory_bytes + delivery.shared_bytes


def said_size(said: list[Saying]) -> int:
    """What these weigh in headers."""
    return sum(map(saying_size, said))
