"""What the history is still to be told, and what may be acknowledged when it knows.

It is handed over in batches. A history that does not take them holds everybody up before memory is full: no
results go out while more than `FACT_BYTES` wait (`is_behind`), so clients send no further calls, and engines
pause because their results are not acknowledged. What tasks say goes on meanwhile: beyond so many bytes of
facts it is counted and not kept.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from enginery.ids import NO_ENGINE, BlobId, ClientId, EngineId, EngineKey, TaskId
from enginery.protocol.codec import Buffer
from enginery.protocol.history import (
    BlobDropped,
    BlobPlaced,
    BuffersKept,
    HistoryFact,
    ResultsReleased,
    TaskData,
    TaskDisplay,
    TaskText,
)
from enginery.protocol.link import RECORD_BYTES

FACT_BYTES = 64 << 20
"""Of facts that the history has not taken, payloads and buffers included."""


class Commit(NamedTuple):
    """What may be acknowledged once a batch of facts is safe."""

    accepted: dict[ClientId, list[int]]
    stored: dict[EngineId, int]
    joined: list[EngineKey] = []  # noqa: RUF012 - never changed


class FactBatch(NamedTuple):
    """What the history is given at once."""

    facts: list[HistoryFact]
    commit: Commit
    buffers: list[tuple[BlobId, Sequence[Buffer]]]
    """That the facts speak of, in pieces."""


class Recording:
    """The facts of one controller that wait for its history."""

    def __init__(self) -> None:
        self._facts: list[HistoryFact] = []
        self._size_bytes = 0
        self._buffer_bytes = 0
        self._unkept: Counter[TaskId] = Counter()  # of what tasks have said, for want of a faster history
        self._buffers: list[tuple[BlobId, Sequence[Buffer]]] = []
        self._accepting: dict[ClientId, list[int]] = {}
        self._storing: dict[EngineId, int] = {}
        self._joining: list[EngineKey] = []
        self._under_way: deque[Commit] = deque()  # handed over, not safe yet
        self.owed: Counter[TaskId] = Counter()
        """Results that the history has to keep, by how many clients' sake."""
        self._released: list[TaskId] = []

    def __len__(self) -> int:
        return len(self._facts)

    def __repr__(self) -> str:
        behind = ", behind" if self.is_behind else ""
        return f"<Recording: {len(self)} facts, {self._size_bytes + self._buffer_bytes} bytes{behind}>"

    @property
    def is_behind(self) -> bool:
        """Whether the history has not taken what there is: then no more is made until it has."""
        return self._size_bytes + self._buffer_bytes > FACT_BYTES

    @property
    def is_waiting(self) -> bool:
        """Whether there is something to hand over."""
        return bool(self._facts or self._storing or self._released)

    @property
    def is_urgent(self) -> bool:
        """Whether somebody waits for what is to be handed over."""
        return bool(self._joining)

    # ------------------------------------------------------------ facts

    def add(self, fact: HistoryFact, size_bytes: int = RECORD_BYTES) -> None:
        """This has become true."""
        self._facts.append(fact)
        self._size_bytes += size_bytes

    def add_saying(self, fact: TaskText | TaskData | TaskDisplay, size_bytes: int) -> None:
        """A task has said this."""
        if self._size_bytes > FACT_BYTES:  # large buffers are no reason to lose what is small
            self._unkept[fact.task] += 1
        else:
            self.add(fact, size_bytes)

    def add_buffers(self, task: TaskId, buffers: Sequence[tuple[BlobId, Sequence[Buffer]]]) -> None:
        """The history is to keep these large buffers of a result, in pieces; those without any are lost."""
        there = [(blob, pieces) for blob, pieces in buffers if pieces]
        size_bytes = sum(len(piece) for _, pieces in there for piece in pieces)
        self._buffers += there
        self._buffer_bytes += size_bytes
        self.add(BuffersKept(task, [blob for blob, _ in buffers], size_bytes))

    def add_blob(self, fact: BlobPlaced, pieces: Sequence[Buffer]) -> None:
        """This is where a blob is: the history itself is to keep the pieces, if there are any."""
        if pieces:
            self._buffers.append((fact.blob, pieces))
        self.add(fact)

    # ------------------------------------------------------------ what is owed

    def owe(self, task: TaskId) -> None:
        """The history has to keep a result for one more client."""
        self.owed[task] += 1

    def release(self, tasks: Iterable[TaskId]) -> None:
        """A client has taken such results, or will not."""
        for task in tasks:
            self.owed[task] -= 1
            if not self.owed[task]:
                del self.owed[task]
                self._released.append(task)

    # ------------------------------------------------------------ who is told

    def on_accepted(self, client: ClientId, numbers: Iterable[int]) -> None:
        """These tasks are in; their client hears of it when that is committed."""
        self._accepting.setdefault(client, []).extend(numbers)

    def on_results_seen(self, engine: EngineId, below: int) -> None:
        """Results of this engine are in; it hears of it when that is committed."""
        self._storing[engine] = below

    def on_joined(self, engine: EngineKey) -> None:
        """This engine is here; it gets tasks when that is committed."""
        self._joining.append(engine)

    def uncommitted(self, client: ClientId) -> list[int]:
        """The numbers of this client's tasks that are in, and not safe yet."""
        commits = (commit.accepted for commit in self._under_way)
        return [number for accepted in (*commits, self._accepting) for number in accepted.get(client, ())]

    def on_committed(self, commit: Commit) -> None:
        """A batch that was taken is safe. They are committed in their order."""
        while self._under_way and self._under_way.popleft() is not commit:
            pass

    def on_client_gone(self, client: ClientId) -> None:
        self._accepting.pop(client, None)

    def on_engine_gone(self, engine: EngineId) -> None:
        self._storing.pop(engine, None)

    # ------------------------------------------------------------ handing over

    def take(self, dropped: Iterable[BlobId] = ()) -> FactBatch | None:
        """All that waits; None if nothing does. These blobs the history may forget."""
        self._facts.extend(map(BlobDropped, dropped))
        if self._released:
            self._facts.append(ResultsReleased(self._released))
            self._released = []
        self._facts.extend(
            TaskText(task, NO_ENGINE, "stderr", _unkept(count)) for task, count in self._unkept.items()
        )
        if not self._facts and not self._storing:
            return None
        commit = Commit(self._accepting, self._storing, self._joining)
        batch = FactBatch(self._facts, commit, self._buffers)
        self._under_way.append(commit)
        self._facts, self._accepting, self._storing, self._buffers = [], {}, {}, []
        self._joining = []
        self._size_bytes = 0
        self._buffer_bytes = 0
        self._unkept.clear()
        return batch

    def check(self) -> None:
        """Assert every invariant."""
        assert all(count > 0 for count in self.owed.values())
        assert not self.owed.keys() & set(self._released)


def _unkept(count: int) -> str:
    what = "1 piece" if count == 1 else f"{count} pieces"
    return f"[{what} of this task's output could not be written to the history fast enough]\n"
