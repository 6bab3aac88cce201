"""What threads do on behalf of a session: which of them fulfils promises, which is its background thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from enginery.client.shield import Lowered

if TYPE_CHECKING:
    from enginery.client.news import News
    from enginery.client.state import ClientState

log = logging.getLogger("enginery.client")


def guard(callback: Callable[..., object], *arguments: object) -> None:
    """Call what is not ours: its error must not keep the other results from their owners."""
    try:
        callback(*arguments)
    except Exception:
        log.exception("an error in %r", callback)


class Present(threading.local):
    """What the present thread is doing."""

    is_fulfilling: bool = False
    callbacks: list[Callable[[], object]] | None = None
    """Where futures put the calling of their callbacks until all that has come is handed out."""
    background_of: object = None
    """The connection whose background thread it is."""


present = Present()


def call_back(callbacks: Iterable[Callable[[], object]]) -> None:
    """Call each of these. Ctrl-C in one keeps no other from being called, and is raised in the end."""
    interrupt: BaseException | None = None
    for callback in callbacks:
        try:
            with Lowered(is_due=True):
                guard(callback)
        except BaseException as error:  # noqa: BLE001 - raised below
            interrupt = interrupt or error
    if interrupt is not None:
        raise interrupt


def act_on(
    news: News, state: ClientState, lock: AbstractContextManager[Any], on_handed_out: Callable[[], object]
) -> None:
    """Fulfil promises, after which the deliveries count as taken; then call back whoever asked for it.

    Callbacks may wait for anything: whatever has come together with what they are told of is there then.
    """
    nested = present.is_fulfilling, present.callbacks
    callbacks: list[Callable[[], object]] = []
    present.is_fulfilling, present.callbacks = True, callbacks
    try:
        try:
            _hand_out(news, state, lock)
        finally:  # also after Ctrl-C: what has been handed out is not handed out again
            present.callbacks = nested[1]
            on_handed_out()
            call_back(callbacks)
    finally:
        present.is_fulfilling, present.callbacks = nested


def _hand_out(news: News, state: ClientState, lock: AbstractContextManager[Any]) -> None:
    for promise in news.listeners:
        guard(promise.on_heard)
    for promise, result in news.results:
        guard(promise.on_result, result, news.buffers.get(result.task, ()))
    with lock:
        followers = state.on_fulfilled(news)
    for promise, result in followers:
        guard(promise.on_result, result, news.buffers.get(result.task, ()))
    if followers:
        with lock:
            state.on_told(followers)
    for question, answer in news.answers:
        question.answer(answer)
        with lock:
            state.questions.on_told(question)
    for change in news.changes:
        for listener in state.engines.listeners:
            guard(listener, change.joined, change.left)
