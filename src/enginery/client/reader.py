"""Who makes a connection's turns: whoever waits reads, and a thread in the background while nobody does.

Problem: a call should cost one thread hand-over less than "the caller waits for a receiving thread". Choice:
whoever blocks in `wait_until` takes the *reader's role* (`reading`), polls the descriptor and handles what
comes, for everybody; one at a time, and when its own wish is fulfilled it hands the role to another waiter.
The background thread holds the role only when nobody waits: it takes it `MAKE_ROOM_S` after the last waiter
left. Measured on a routed call: 1.05–1.19 of a raw ping-pong with the caller reading, 1.25–1.57 with a
receiving thread alone.

The thread knows the connection and nobody who uses it. When the last of those is gone it is told to `abandon`
the connection, and leaves the cluster as `close` would.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable

from enginery import nesting
from enginery.client import leaving
from enginery.client.connection import WATCH_S, Connection
from enginery.client.fulfilling import present
from enginery.client.leaving import LINGER_S, STALL_S
from enginery.client.news import News
from enginery.client.shield import Lowered, Shield
from enginery.transport import clock

JOIN_S = 5.0
"""Longer than the background thread can take to notice the end, unless it is in somebody's callback."""
FINISH_S = 1.0
"""How long the background thread leaves the telling of the session's end to the thread that noticed it."""
MAKE_ROOM_S = 0.005
"""How long the background thread leaves the reader's role to callers that come in quick succession."""
LOOK_S = 1.0
"""The longest sleep of the main thread: a signal that comes just before it ends no sleep of select's."""

log = logging.getLogger("enginery.client")


class Reader:
    """All who wait on one connection, and the thread that reads when they do not."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._role = connection.role
        self._is_abandoned = False
        self.is_nested = False  # whether tasks that wait here are run by an engine that is of use meanwhile
        self.thread = threading.Thread(target=self._serve, name="enginery-client", daemon=True)

    def __repr__(self) -> str:
        return f"<Reader of {self._connection!r}{', abandoned' if self._is_abandoned else ''}>"

    def start(self) -> None:
        """Begin to read in the background."""
        self.thread.start()
        leaving.close_at_exit(self)

    # ------------------------------------------------------------ waiting

    def wait_until(self, predicate: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until the predicate holds; the caller reads the connection meanwhile.

        The predicate is cheap and thread-safe. None or a negative time-out means for ever. Returns its last
        value.
        """
        with Shield():
            return self._wait_until(predicate, timeout_s)

    def _wait_until(self, predicate: Callable[[], bool], timeout_s: float | None) -> bool:
        connection = self._connection
        connection.check_caller()
        deadline = None if timeout_s is None or timeout_s < 0 else clock.now() + timeout_s
        while not predicate():
            if deadline is not None and clock.now() >= deadline:
                return False
            if connection.end_reason:
                if not present.is_fulfilling:
                    with Lowered():  # whoever noticed the end is about to tell every promise
                        connection.is_over.wait(JOIN_S)
                return predicate()
            stage = nesting.stage if self.is_nested else None
            if stage is not None and stage.may_lend():
                with Lowered():  # what runs meanwhile is interrupted by itself
                    stage.lend(
                        lambda: predicate() or bool(connection.end_reason), deadline, self._role.listen
                    )
                continue
            news = self._read(predicate, deadline)
            if news is None:
                # The background thread makes room for us, but not for itself.
                self._role.sleep(predicate, deadline, kick=present.background_of is not connection)
            else:
                connection.act_on(news)
        connection.tickers.run_if_any(clock.now)
        return True

    def notify(self) -> None:
        """Predicates may have changed for another reason than a message."""
        self._role.wake_satisfied()
        self._role.waker.wake()

    def _read(self, predicate: Callable[[], bool], deadline: float | None) -> News | None:
        """Take the reader's role and read until there is news or the predicate holds; None: it is taken.

        Nothing is pending when this begins, or the waker is set: `Connection.pump` sees to it.
        """
        connection = self._connection
        try:
            if not self._role.take():
                return None
            while not predicate() and not connection.end_reason:
                if connection.ledger.has_output:  # submitted while nobody read: for whoever reads next
                    with connection.lock:
                        connection.pump(clock.now())
                now = self._poll(deadline)
                if now >= connection.tickers.due:
                    connection.tickers.run(now)
                news = connection.turn(now)
                if news or (deadline is not None and now >= deadline):
                    return news
            return News()
        finally:
            self._role.leave()

    def _poll(self, deadline: float | None) -> float:
        """Sleep until something may have come or is due; returns the time."""
        connection = self._connection
        due = min(connection.due, connection.tickers.due)
        if threading.get_ident() == threading.main_thread().ident:
            due = min(due, clock.now() + LOOK_S)
        if deadline is not None and deadline < due:
            due = deadline
        poller = select.poll()
        poller.register(self._role.waker.fileno(), select.POLLIN)
        descriptor = connection.channel.fileno()
        if descriptor >= 0:
            poller.register(descriptor, select.POLLIN)
        watched = connection.watched
        if watched >= 0:
            poller.register(watched, select.POLLIN)
        with Lowered():
            found = poller.poll(max((due - clock.now()) * 1000, 0.0))
        for ready, _ in found:
            if ready == watched:
                connection.due = 0.0
            elif ready != descriptor:
                self._role.waker.clear()
        return clock.now()

    # ------------------------------------------------------------ the background thread

    def _serve(self) -> None:
        connection = self._connection
        present.background_of = connection
        try:
            self._serve_until_end()
        except Exception as error:
            # Whatever it is, those who wait must not wait for a thread that is gone.
            log.exception("the connection to %s has failed", connection.info.cluster)
            connection.end_reason = f"its connection has failed: {type(error).__name__}: {error}"
        if not connection.is_over.wait(FINISH_S):  # whoever has noticed the end was kept from telling
            connection.finish()
        while not self._role.take():  # who reads still polls the waker; he leaves, because this is the end
            connection.idle.wait(WATCH_S)
            connection.idle.clear()
        self._role.waker.close()
        leaving.is_closed(self)

    def _serve_until_end(self) -> None:
        connection = self._connection
        while not connection.end_reason:
            self._role.heal()
            busy = self._role.is_taken or self._role.is_wanted
            if busy or clock.now() - self._role.left_at < MAKE_ROOM_S:
                connection.idle.wait(WATCH_S if busy else MAKE_ROOM_S)
                connection.idle.clear()
                continue
            if self._is_abandoned:
                self.close(LINGER_S)
                return
            connection.report()
            news = self._read(lambda: self._role.is_wanted or self._is_abandoned, None)
            if news is not None:
                connection.act_on(news)

    # ------------------------------------------------------------ the end

    def abandon(self) -> None:
        """Nobody will use this connection any more: have the background thread close it.

        For finalizers: it takes no lock but the waker's own, which may be taken anywhere.
        """
        if self._connection.pid == os.getpid():
            self._is_abandoned = True
            self._role.waker.wake()  # whoever does not poll just now looks within `WATCH_S`

    def close(self, linger_s: float) -> None:
        """Leave the cluster. `linger_s` bounds the wait for what is on its way to the controller."""
        connection = self._connection
        if connection.pid != os.getpid():
            return  # the connection is the parent's
        lost = 0 if connection.end_reason else leaving.linger(self.wait_until, connection.progress, linger_s)
        if lost:
            name = connection.info.cluster
            log.warning("%d tasks were not safe at %r when its client closed: lost", lost, name)
        connection.say_goodbye("this client is closed")
        connection.finish(min(linger_s, STALL_S))
        connection.copier.join()
        if self.thread.ident is None:
            self._role.waker.close()
        elif threading.current_thread() is not self.thread:
            self.thread.join(JOIN_S)
