"""Results on their way to one client: numbered, sent within a window, kept until the client has them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from enginery.protocol.messages import TaskResult, text_size

WINDOW_BYTES = 64 << 20
RESULTS_PER_RECORD = 1000
RECORD_BYTES = 1 << 18


def result_size(result: TaskResult) -> int:
    """What a result weighs in a header."""
    texts = text_size(result.stdout) + text_size(result.stderr) + text_size(result.detail)
    return 96 + len(result.payload) + texts


class Deliveries:
    """The results of one client, from their end to the client's word that they have arrived.

    A delivery is *waiting* (not sent in this connection), then *under way*, then taken. After a new hello
    everything that was not taken is waiting again; the client ignores what it has already.
    """

    __slots__ = ("_first", "_sizes", "_under_way", "_under_way_bytes", "_waiting", "window_bytes")

    def __init__(self, *, window_bytes: int = WINDOW_BYTES) -> None:
        self.window_bytes = window_bytes
        self._first = 0  # number of the oldest delivery that is not taken
        self._under_way: deque[tuple[TaskResult, int]] = deque()
        self._under_way_bytes = 0
        self._waiting: deque[tuple[TaskResult, int]] = deque()

    def __len__(self) -> int:
        return len(self._under_way) + len(self._waiting)

    def __repr__(self) -> str:
        return (
            f"<Deliveries from {self._first}: {len(self._under_way)} under way, {len(self._waiting)} waiting>"
        )

    @property
    def next_number(self) -> int:
        """Of the next delivery that `take` will hand out."""
        return self._first + len(self._under_way)

    def add(self, result: TaskResult, blob_bytes: int) -> None:
        self._waiting.append((result, result_size(result) + blob_bytes))

    def on_hello(self, received: int) -> list[TaskResult]:
        """The client is (back) here and has taken everything below `received`. Returns what it has taken."""
        taken = self.on_received(received)
        self._under_way.extend(self._waiting)
        self._waiting, self._under_way = self._under_way, deque()
        self._under_way_bytes = 0
        return taken

    def on_received(self, below: int) -> list[TaskResult]:
        """The client has taken everything below this number: it need not be kept."""
        taken = []
        while self._first < below and self._under_way:
            result, size = self._under_way.popleft()
            self._under_way_bytes -= size
            self._first += 1
            taken.append(result)
        return taken

    def take(self) -> Iterator[tuple[int, list[TaskResult], int]]:
        """What may be sent now: (first number, results, bytes in the header), in groups fit for one record.

        The results of a group all have blobs, or none has: those that have follow them in the bulk lane.
        """
        while self._waiting:
            first = self.next_number
            group: list[TaskResult] = []
            weight = 0
            with_blobs = bool(self._waiting[0][0].blobs)
            while (
                self._waiting
                and bool(self._waiting[0][0].blobs) == with_blobs
                and len(group) < RESULTS_PER_RECORD
                and weight < RECORD_BYTES
                and (self._under_way_bytes < self.window_bytes or not self._under_way)
            ):
                result, size = self._waiting.popleft()
                self._under_way.append((result, size))
                self._under_way_bytes += size
                group.append(result)
                weight += result_size(result)
            if not group:
                return
            yield first, group, weight

    def everything(self) -> list[TaskResult]:
        return [result for result, _ in (*self._under_way, *self._waiting)]

    def check(self) -> None:
        assert self._under_way_bytes == sum(size for _, size in self._under_way)
