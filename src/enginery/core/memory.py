"""What the processes of a cluster hold: the engines' words and the controller's own, in one answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from enginery.core.polls import Poll
from enginery.ids import EngineId
from enginery.protocol.link import RECORD_BYTES
from enginery.protocol.messages import EngineMemoryUse, MemoryAnswer, MemoryUse

PAGE_BYTES = 1 << 18
_ENGINE_BYTES = 100
_OBJECT_BYTES = 250

MeasureMemory = Callable[[], tuple[int, int]]
"""The resident and the proportional bytes of this process."""


Question = Poll[EngineId, MemoryUse]
"""Put to engines over their control connections."""


def pages(question: Question, controller: MemoryUse) -> Iterator[tuple[MemoryAnswer, int]]:
    """The answer in records of bounded size, each with its size."""
    page, weight = MemoryAnswer(question.request, [], is_last=False), RECORD_BYTES
    for engine, use in sorted(question.words.items()):
        size_bytes = _ENGINE_BYTES + _OBJECT_BYTES * len(use.objects)
        if page.engines and weight + size_bytes > PAGE_BYTES:
            yield page, weight
            page, weight = MemoryAnswer(question.request, [], is_last=False), RECORD_BYTES
        page.engines.append(EngineMemoryUse(engine, use))
        weight += size_bytes
    page.silent, page.controller, page.is_last = sorted(question.open), controller, True
    yield page, weight + 9 * len(page.silent)
