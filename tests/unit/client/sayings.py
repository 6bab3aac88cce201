"""What tasks say while they run, said to the promises of results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from enginery.client.results.outcome import Outcome
from enginery.core.watching import Saying
from enginery.ids import EngineId, TaskId
from enginery.objects.displays import pack_display
from enginery.protocol.messages import Data, Display, Output


def say(promise: Any, *sayings: Saying) -> None:
    for saying in sayings:
        promise.on_said(saying)
    promise.on_heard()


def write(promise: Any, stream: str, text: str, *, number: int = 0, attempt: int = 1) -> None:
    """The task has written; by default this is the next piece."""
    say(promise, Output(_task(promise), _engine(promise), stream, text, attempt, number or _next(promise)))


def publish(promise: Any, name: str, payload: bytes) -> None:
    say(promise, Data(_task(promise), name, payload))


def display(
    promise: Any,
    data: Mapping[str, Any],
    metadata: Mapping[str, Any] | None = None,
    *,
    kind: str = "display_data",
    display_id: str = "",
    pieces: int = 1,
    **transient: Any,
) -> None:
    """The task has displayed something; by default it comes as a whole."""
    if display_id:
        transient["display_id"] = display_id
    content = pack_display(data, metadata, transient)
    size = -(-len(content) // pieces)
    for start in range(0, len(content), size):
        end = start + size
        piece = content[start:end], start, end >= len(content)
        say(promise, Display(_task(promise), _engine(promise), kind, *piece, 1, _next(promise)))


def clear(promise: Any, *, wait: bool = False) -> None:
    display(promise, {}, kind="clear_output", wait=wait)


def _next(promise: Any) -> int:
    return 1 if promise._said is None else int(promise._said.last[1]) + 1


def _task(promise: Any) -> TaskId:
    return promise.task or TaskId(1)


def _engine(promise: Any) -> EngineId:
    assert isinstance(promise, Outcome)
    return EngineId(0) if promise.target is None else promise.target
