"""What becomes of a record that cannot be sent: whoever waits for what is in it hears of that instead."""

from __future__ import annotations

from typing import cast

from enginery.core.state import ClusterState, Identity
from enginery.ids import ClientId, EngineId
from enginery.protocol.messages import Answer, EngineResult, Finished, Record, Run, Status, TaskResult


def on_unsendable(
    state: ClusterState, identity: Identity, record: Record, reason: str, *, now: float
) -> None:
    """A record has been taken off this peer's link, because of this."""
    kind, key = identity
    if isinstance(record, Finished):
        _say_one_by_one(state, cast(ClientId, key), record, reason)
    elif isinstance(record, Run):
        for call in record.calls:
            refused = EngineResult(call.task, call.attempt, Status.REFUSED, b"", (), now, now, error=reason)
            state.scheduler.on_result(cast(EngineId, key), refused, now=now)
    elif kind == "client" and (number := getattr(record, "request", None)) is not None:
        state.say("client", key, Answer(number, reason))


def _say_one_by_one(state: ClusterState, client: ClientId, record: Finished, reason: str) -> None:
    """The others of a batch are fit to be sent, and come here no second time."""
    if len(record.results) > 1:
        for number, result in enumerate(record.results, record.first):
            state.say("client", client, Finished(number, [result]))
        return
    for result in record.results:
        dropped = TaskResult(result.task, Status.DROPPED, engine=result.engine, detail=reason)
        state.say("client", client, Finished(record.first, [dropped]))
