"""Engines end: by their own word, by their host's, or because nobody has heard of them for too long."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from enginery.core import places, taking_over
from enginery.core.liveness import GRACE_S
from enginery.ids import NO_ENGINE, EngineId, HostKey, TaskId
from enginery.protocol.messages import (
    EngineExited,
    EngineLeft,
    EnginesChanged,
    Goodbye,
    LastWord,
    Status,
)

if TYPE_CHECKING:
    from enginery.core.state import ClusterState


def on_goodbye(state: ClusterState, engine: EngineId, goodbye: Goodbye, *, now: float) -> None:
    """It leaves on purpose, and says itself what it has begun: results of that may be lost on their way."""
    record = state.registry.engines[engine]
    state.registry.on_engine_ended(record.key)
    started: frozenset[TaskId] | None = None
    if goodbye.started is not None:
        strangers = state.scheduler.strangers(engine, goodbye.started)  # of an earlier attempt, for one
        started = frozenset(task for task, _ in set(goodbye.started).difference(strangers))
    state.forget_engine(
        record.key,
        cause="it was restarted" if record.key in state.restarts else "it was stopped",
        status=Status.ENGINE_DIED,
        started=started,
        expected=True,
        now=now,
    )


def on_engine_exited(state: ClusterState, key: HostKey, record: EngineExited, *, now: float) -> None:
    registered = state.registry.engine_by_key(record.key)
    if registered is None and not record.expected and not state.registry.has_ended(record.key):
        # Who waits for it to join has to know.
        state.tell_all_clients(EnginesChanged([], [EngineLeft(NO_ENGINE, record.key, record.cause)]))
    elif registered is not None and registered.host_key != key:
        return  # a host speaks for its own engines only
    taking_over.on_exited(state, record.key, record.started if record.proof else (), now=now)
    is_expected = record.expected or record.key in state.stopping or state.is_shutting_down
    note = ""
    if is_expected:
        state.healing.on_stopped(record.key)
    else:
        note = places.heal(state, record.key, key, record.cause, now=now)
    state.registry.on_engine_ended(record.key)
    if registered is not None:
        _hear_last_words(state, registered.engine, record.words, now=now)
    replaced = state.restarts.on_engine_gone(record.key, now=now)
    load = None if registered is None else state.scheduler.load(registered.engine)
    state.forget_engine(
        record.key,
        cause=replaced or places.join_sentences(record.cause, note),
        status=Status.ENGINE_DIED,
        started=load.may_have_begun(record.started) if load is not None and record.proof else None,
        expected=is_expected or bool(replaced),
        now=now,
    )
    places.start_again(state, record.key, key)


def _hear_last_words(state: ClusterState, engine: EngineId, words: Iterable[LastWord], *, now: float) -> None:
    def is_wanted(word: LastWord) -> bool:
        task = state.scheduler.task(word.task)
        if task is None:
            return word.is_late and state.scheduler.has_had(engine, word.task)
        return (task.engine, task.attempt) == (engine, word.attempt)

    state.voices.on_last_words(engine, words, is_wanted=is_wanted, now=now, outbox=state)


def lose_engine(state: ClusterState, engine: EngineId, *, now: float) -> None:
    """Its route has been gone for longer than its grace, and nobody has proof of its death."""
    record = state.registry.engines.get(engine)
    if record is not None and ("control", engine) in state.links:
        # Its control thread is there: user code keeps the other one from saying hello.
        identity = ("engine", engine)
        state.liveness.on_connected(identity, now=now, grace_s=GRACE_S)
        state.liveness.on_disconnected(identity, now=now)
    elif record is not None:
        state.forget_engine(
            record.key,
            cause=f"it has not been heard of for {GRACE_S:.0f} s",
            status=Status.ENGINE_LOST,
            started=None,
            now=now,
        )
