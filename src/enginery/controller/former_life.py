"""What a history says of a controller that has ended: read once, before another one goes on with it."""

from __future__ import annotations

from enginery.controller.store.store import HistoryStore
from enginery.core.left_over import FormerClient, FormerEngine, FormerTask, LeftOver
from enginery.protocol.messages import EngineInfo


def read_left_over(store: HistoryStore) -> LeftOver:
    """Everything that is unfinished. Raises HistoryError."""
    places = {place.task: place for place in store.places()}
    tasks = []
    for call in sorted(store.unfinished(), key=lambda call: (call.submitted, call.task)):
        place = places.get(call.task)
        if place is None:
            tasks.append(FormerTask(call))
        else:
            tasks.append(FormerTask(call, place.engine_key, place.attempt, place.retries_left))
    lives = store.engines()
    return LeftOver(
        tasks=tasks,
        engines=[
            FormerEngine(EngineInfo(life.engine, life.key, life.host, life.pid), life.secret, life.host_key)
            for life in lives
            if not life.left
        ],
        clients=[
            FormerClient(seen.client, seen.secret, store.numbers(seen.client), store.undelivered(seen.client))
            for seen in store.clients()
        ],
        blobs=list(store.blobs()),
        places=store.blob_places(),
        read_buffer=store.buffer,
        gone_engines=[(life.engine, life.cause) for life in lives if life.left],
        gone_clients=store.gone_clients(),
    )
