"""The places of engines that have died are filled again, by order or because that is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enginery.core.restarts import Place
from enginery.ids import NO_ENGINE, EngineKey, HostKey
from enginery.protocol.messages import DeathNote, LaunchEngines

if TYPE_CHECKING:
    from enginery.core.state import ClusterState


def heal(state: ClusterState, key: EngineKey, host: HostKey, cause: str, *, now: float) -> str:
    """A process has died that nobody had told to end: have another one take its place, where that is wanted.

    Returns what becomes of the place, for people; `start_again` has to follow when its host has proof.
    """
    registered = state.registry.engine_by_key(key)
    if registered is None:
        place, is_ready = None, False
    else:
        load = state.scheduler.load(registered.engine)
        place = Place(host, registered.engine)
        is_ready = registered.engine not in state.joining and (load is None or not load.setting_up)
    sequel = state.healing.on_died(key, place, is_ready=is_ready)
    if sequel.place is not None and sequel.place.host == host:
        state.restarts.on_ordered(None, 0, {key: sequel.place})
    if registered is None and sequel.note:  # else it is noted with its tasks, when it is forgotten
        where = sequel.place.engine if sequel.place is not None else NO_ENGINE
        name = state.registry.hosts[host].name if host in state.registry.hosts else ""
        state.deaths.append(DeathNote(where, name, join_sentences(cause, sequel.note), [], now))
    return sequel.note


def start_again(state: ClusterState, key: EngineKey, host: HostKey) -> None:
    """This process is gone: if another one is to take its place, its host is told."""
    if key not in state.restarts:
        return
    launch = state.launches.new_number()
    engine = state.restarts.on_ended(key, host, launch=launch)
    if engine is not None:
        state.say("host", host, LaunchEngines(launch, [engine]))  # else it hears of it at its hello


def join_sentences(cause: str, note: str) -> str:
    return f"{cause}; {note}" if note else cause
