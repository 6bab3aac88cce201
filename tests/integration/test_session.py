"""A client's session: with the real controller over a memory network, and with a real cluster.

Over the memory network the controller runs in a thread of this process, so a test can lose, hold and tear
messages; there are no engines there. What needs engines has a cluster of two.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, as_completed
from contextlib import closing

import pytest

import enginery as ipp
from enginery.client import session as session_module
from enginery.client.session import Session
from enginery.controller.service import Controller
from enginery.controller.store.memory import MemoryStore
from enginery.core import credit, dialer, facing_clients, ledger
from enginery.core.hub import Hub
from enginery.errors import ClientClosed, ClusterNotResponding, ForkedClientError, ReentrantUseError
from enginery.ids import NO_ENGINE, EngineKey, HostKey, TaskId
from enginery.protocol import codec
from enginery.protocol import messages as m
from enginery.transport.channel import Role
from enginery.transport.connection_file import ConnectionInfo
from enginery.transport.memory import Fault, MemoryChannel, MemoryNetwork

PATIENCE_S = 10.0
VERSIONS = m.Versions("1", (3, 11))
ELSEWHERE = ConnectionInfo(
    format=1,
    cluster="memory",
    role=Role.CLIENT,
    tcp=("tcp://127.0.0.1:1",),
    ipc="",
    directory="/nowhere",
    host_proof="",
    controller_pid=0,
    controller_start=0,
    created=0.0,
    server_key="",
    public_key="",
    secret_key="",
    token="",
)


class Site:
    """A controller in a thread, and sessions at it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.network = MemoryNetwork()
        self.controller = Controller(
            cluster="memory", version="1", exchange=self.network.exchange, store=MemoryStore()
        )
        self.channels: list[MemoryChannel] = []
        self._thread = threading.Thread(target=self.controller.run)
        self._sessions: list[Session] = []
        monkeypatch.setattr(session_module, "dial", self._dial)
        self._thread.start()

    def _dial(self, info: ConnectionInfo) -> MemoryChannel:
        channel = self.network.dial(Role.CLIENT)
        self.channels.append(channel)
        return channel

    def session(self, *, timeout_s: float = PATIENCE_S) -> Session:
        session = Session.open(ELSEWHERE, version="1", timeout_s=timeout_s)
        self._sessions.append(session)
        return session

    def end(self) -> None:
        for session in self._sessions:
            session.close(0.0)
        self.stop()
        self.controller.close()
        self.network.close()

    def stop(self) -> None:
        self.controller.stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site(monkeypatch)
    yield site
    site.end()


def answered(session: Session) -> m.StatusAnswer:
    question = session.ask(m.AskStatus)
    assert session.wait_until(question.done, PATIENCE_S)
    answer = question.result(0)
    assert isinstance(answer, m.StatusAnswer)
    return answer


def in_threads(*calls: Callable[[], object]) -> list[object]:
    """What the calls return when they run at once."""
    begin = threading.Barrier(len(calls))
    found: list[object] = [None] * len(calls)

    def run(number: int) -> None:
        begin.wait(PATIENCE_S)
        try:
            found[number] = calls[number]()
        except BaseException as error:
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * PATIENCE_S)
        assert not thread.is_alive(), "a thread waits for ever"
    return found


class Told:
    """A promise that notes how its task has ended."""

    def __init__(self) -> None:
        self.statuses: list[m.Status] = []

    def on_result(self, result: m.TaskResult, buffers: object, /) -> None:
        self.statuses.append(result.status)

    def on_said(self, saying: object, /) -> None: ...

    def on_heard(self) -> None: ...

    def is_told(self) -> bool:
        return bool(self.statuses)


NO_FUNCTION = m.TaskOptions(m.Kind.EXECUTE, name="execute")


# ---------------------------------------------------------------- why it is over


def test_a_session_answers_and_says_that_it_was_closed(site: Site) -> None:
    session = site.session()
    assert answered(session).clients == 1
    session.close()
    session.close()
    with pytest.raises(ClientClosed, match=r"this client is closed; make a new one with Client\(\)"):
        session.ask(m.AskStatus)
    assert session.end_reason == "this client is closed"


def test_an_interruption_of_its_own_work_is_refused(site: Site) -> None:
    session = site.session()
    with session._lock:  # as a finalizer finds it, that the collector runs in the middle of `submit`
        for call in (
            lambda: session.withdraw([]),
            lambda: session.ask(m.AskStatus),
            lambda: session.follow({}),
            lambda: session.wait_until(lambda: True, 0),
        ):
            with pytest.raises(ReentrantUseError, match="a finalizer or signal handler"):
                call()
    assert answered(session).cluster == "memory"


def test_who_waits_when_it_is_closed_goes_on(site: Site) -> None:
    session = site.session()
    waiting = threading.Event()

    def is_there() -> bool:
        waiting.set()
        return False

    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(session.wait_until(is_there))) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert waiting.wait(PATIENCE_S)
    session.close()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert found == [False] * 3


def test_the_end_of_the_cluster_is_the_reason(site: Site) -> None:
    session = site.session()
    site.stop()
    assert session.wait_until(lambda: session.closed, PATIENCE_S)
    with pytest.raises(ClientClosed, match="the cluster was shut down; make a new one"):
        session.ask(m.AskStatus)


def test_a_refusal_is_the_reason(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hub, "on_hello", lambda self, hello, link, *, now: (("client", 1), "not by you"))
    with pytest.raises(ClientClosed, match="the controller has refused this client: not by you; make a new"):
        site.session()


def test_another_version_of_the_protocol_is_refused_with_both(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(epoch: int, number: int, bulk_received: int, records: list[m.Record]) -> bytes:
        return codec._encoder.encode((99, epoch, number, bulk_received, records))

    channel = site.network.dial(Role.CLIENT)
    with closing(channel):
        channel.send(encode(5, 0, 0, [m.Ping()]))
        channel.wait(PATIENCE_S)
        message = channel.receive()
    assert message is not None
    envelope = codec.to_client().decode(*message)
    (refused,) = envelope.records
    assert isinstance(refused, m.Refused)
    assert envelope.epoch == 5, "a dialler looks at refusals of its own hello only"
    assert refused.reason == (
        "this side speaks protocol 1 of enginery and the other 99; "
        "install the same version of enginery on both"
    )


def test_a_controller_that_speaks_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody decodes what it says, so there is no refusal; the dialler says itself what is wrong."""
    network = MemoryNetwork()
    monkeypatch.setattr(session_module, "dial", lambda info: network.dial(Role.CLIENT))
    spoken = threading.Event()

    def speak() -> None:
        network.exchange.wait(PATIENCE_S)
        for incoming in network.exchange.drain():
            network.exchange.send(incoming.route, codec._encoder.encode((99, 1, 0, 0, [])))
        spoken.set()

    thread = threading.Thread(target=speak)
    thread.start()
    with closing(network), pytest.raises(ClientClosed, match="protocol 1 of enginery and the other 99"):
        Session.open(ELSEWHERE, version="1", timeout_s=3.0)
    thread.join(PATIENCE_S)
    assert spoken.is_set()


def test_a_controller_that_is_silent_is_named(site: Site) -> None:
    site.network.up.extend([Fault.DROP] * 1000)
    with pytest.raises(ClusterNotResponding, match=r"did not answer within 0\.1 s at memory"):
        site.session(timeout_s=0.1)
    site.network.up.clear()


# ---------------------------------------------------------------- nobody holds it any more


class Holding(Told):
    """A promise that holds its session, as a result does, until it is fulfilled."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session: Session | None = session

    def on_result(self, result: m.TaskResult, buffers: object, /) -> None:
        super().on_result(result, buffers)
        self.session = None


def opened(site: Site) -> Session:
    return Session.open(ELSEWHERE, version="1", timeout_s=PATIENCE_S)


def ended(thread: threading.Thread) -> bool:
    thread.join(PATIENCE_S)
    return not thread.is_alive()


def test_a_session_that_nobody_holds_leaves_the_cluster(site: Site) -> None:
    session, other = opened(site), site.session()
    thread, connection = session._reader.thread, session._connection
    assert answered(other).clients == 2
    del session
    assert ended(thread)
    assert connection.end_reason == "this client is closed"
    assert connection.channel.fileno() < 0
    assert answered(other).clients == 1


def test_a_session_is_held_by_what_it_has_promised(site: Site) -> None:
    session, other = opened(site), site.session()
    thread, connection = session._reader.thread, session._connection
    promise = Holding(session)
    task = session.submit(NO_FUNCTION, b"", (), [promise])
    del session
    assert not connection.end_reason
    other.withdraw([task])
    assert ended(thread)
    assert promise.statuses == [m.Status.ABORTED]


def test_what_was_submitted_by_a_session_that_nobody_holds_is_safe(site: Site) -> None:
    session, other = opened(site), site.session()
    thread = session._reader.thread
    late = Told()
    with session._lock:  # nothing leaves before it is dropped
        tasks = [session._ledger.on_submitted(NO_FUNCTION, b"", (), [Told()]) for _ in range(100)]
    del session
    assert ended(thread)
    other.follow({tasks[-1]: late})
    other.withdraw(tasks)
    assert other.wait_until(late.is_told, PATIENCE_S)
    assert late.statuses == [m.Status.ABORTED]


def test_a_session_may_be_dropped_where_its_lock_is_held(site: Site) -> None:
    """The collector runs anywhere."""
    session, other = opened(site), site.session()
    thread, connection = session._reader.thread, session._connection
    with connection.lock, other._lock:
        del session
    assert ended(thread)
    assert answered(other).clients == 1


# ---------------------------------------------------------------- lost messages and interrupts


def test_a_connection_that_breaks_is_mended(site: Site) -> None:
    session = site.session()
    site.network.up.append(Fault.DROP)
    question = session.ask(m.AskStatus)
    session.ask(m.AskStatus)  # the gap shows with the next message
    assert session.wait_until(question.done, PATIENCE_S)
    site.channels[0].tear_next_send = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        session.ask(m.AskStatus)
    assert answered(session).clients == 1


def test_a_predicate_that_is_interrupted_leaves_a_session_of_use(site: Site) -> None:
    session = site.session()
    for calls_before in range(6):
        left = [calls_before]

        def interrupted(left: list[int] = left) -> bool:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            session.notify()  # so that it is asked again
            return False

        with pytest.raises(KeyboardInterrupt):
            session.wait_until(interrupted, PATIENCE_S)
        assert not session._connection.role.is_wanted
        assert answered(session).clients == 1


def interrupted_turn(site: Site, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session that was interrupted in mid-turn, and whose next wait brought the answer."""
    session = site.session()
    interrupted: list[bool] = []
    received = MemoryChannel.receive
    reader = threading.get_ident()

    def receive(channel: MemoryChannel) -> object:
        message = received(channel)
        if message is not None and threading.get_ident() == reader and not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt  # the message is taken and not acted on
        return message

    monkeypatch.setattr(MemoryChannel, "receive", receive)
    for _ in range(50):
        question = session.ask(m.AskStatus)
        try:
            assert session.wait_until(question.done, PATIENCE_S)
        except KeyboardInterrupt:
            assert session.wait_until(question.done, PATIENCE_S), "it is asked again after a new hello"
        if interrupted:
            break
    assert interrupted
    return session


def test_an_interrupt_in_the_middle_of_a_turn_loses_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = interrupted_turn(site, monkeypatch)
    assert answered(session).clients == 1


def test_an_interrupt_in_the_middle_of_a_turn_is_mended_at_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not when one side has been silent for so long that the other asks whether it is there."""
    monkeypatch.setattr(dialer, "PING_S", 10 * PATIENCE_S)
    monkeypatch.setattr(site.controller.hub.state.liveness, "_probe_interval_s", 10 * PATIENCE_S)
    interrupted_turn(site, monkeypatch)


def test_tasks_are_followed_by_their_own_client_and_by_others(site: Site) -> None:
    """There are no engines, so tasks end by being aborted."""
    owner, other = site.session(), site.session()
    own, follower, stranger = Told(), Told(), Told()
    task = owner.submit(NO_FUNCTION, b"", (), [own])
    owner.follow({task: follower})
    assert owner.wait_until(lambda: owner.is_accepted([task]), PATIENCE_S)
    other.follow({task: stranger})
    assert not stranger.is_told()
    owner.withdraw([task])
    assert owner.wait_until(lambda: own.is_told() and follower.is_told(), PATIENCE_S)
    assert other.wait_until(stranger.is_told, PATIENCE_S)
    owner.close()
    late = Told()
    other.follow({task: late})
    assert other.wait_until(late.is_told, PATIENCE_S), "its owner has left, the controller remembers"
    assert own.statuses == follower.statuses == stranger.statuses == late.statuses == [m.Status.ABORTED]


def test_other_clients_may_abort_and_unknown_tasks_end(site: Site) -> None:
    owner, other = site.session(), site.session()
    own, unknown = Told(), Told()
    task = owner.submit(NO_FUNCTION, b"", (), [own])
    assert owner.wait_until(lambda: owner.is_accepted([task]), PATIENCE_S)
    other.withdraw([task])
    assert owner.wait_until(own.is_told, PATIENCE_S)
    assert own.statuses == [m.Status.ABORTED]
    other.follow({TaskId(12345): unknown})
    assert other.wait_until(unknown.is_told, PATIENCE_S)
    assert unknown.statuses == [m.Status.UNKNOWN]


def test_what_is_followed_outlives_a_broken_connection(site: Site) -> None:
    owner, other = site.session(), site.session()
    task = owner.submit(NO_FUNCTION, b"", (), [Told()])
    assert owner.wait_until(lambda: owner.is_accepted([task]), PATIENCE_S)
    site.network.up.append(Fault.DROP)
    follower = Told()
    other.follow({task: follower})
    assert answered(other).clients == 2, "asking again made the gap show"
    owner.withdraw([task])
    assert other.wait_until(follower.is_told, PATIENCE_S)
    assert follower.statuses == [m.Status.ABORTED]


def test_an_interrupt_while_followers_are_told_loses_none(site: Site) -> None:
    session = site.session()
    reader = threading.get_ident()
    interrupts: list[bool] = []

    class Interrupted(Told):
        def on_result(self, result: m.TaskResult, buffers: object, /) -> None:
            super().on_result(result, buffers)
            if threading.get_ident() == reader and not interrupts:
                interrupts.append(True)
                raise KeyboardInterrupt

    for _ in range(50):  # the background thread may be the one who tells
        first, other = Interrupted(), Told()
        task = session.submit(NO_FUNCTION, b"", (), [Told()])
        session.follow({task: first})
        session.follow({task: other})
        try:
            session.withdraw([task])
            assert session.wait_until(other.is_told, PATIENCE_S)
        except KeyboardInterrupt:
            assert not other.is_told()
            assert session.wait_until(other.is_told, PATIENCE_S)
        assert first.statuses[0] == other.statuses[0] == m.Status.ABORTED
        if interrupts:
            return
    raise AssertionError("it was never this thread")


def test_what_is_followed_ends_with_the_session(site: Site) -> None:
    owner, other = site.session(), site.session()
    task = owner.submit(NO_FUNCTION, b"", (), [Told()])
    assert owner.wait_until(lambda: owner.is_accepted([task]), PATIENCE_S)
    follower = Told()
    other.follow({task: follower})
    answered(other)
    other.close()
    assert follower.statuses == [m.Status.REFUSED]
    with pytest.raises(ClientClosed):
        other.follow({task: follower})


def test_many_aborts_leave_a_client_of_use(site: Site) -> None:
    session = site.session()
    session.withdraw([TaskId(7 << 32 | number) for number in range(1, 150_001)])
    with pytest.raises(ValueError, match="the question to the controller has"):
        session.ask(lambda number: m.PurgeHistory(number, [TaskId(2**62)] * 150_000, []))
    assert answered(session).clients == 1


def test_what_cannot_be_sent_is_told_to_whoever_waits(site: Site) -> None:
    session = site.session()
    link = session._connection.dialer.link
    question = session.ask(m.AskStatus)
    assert session.wait_until(question.done, PATIENCE_S)
    promise = Told()
    with session._lock:
        waiting = session._state.questions.on_asked(m.AskStatus)
        link.put(m.AskHistory(waiting.number, [m.Term("label", "eq", 2**70)]))
    options = m.TaskOptions(m.Kind.CALL, label="x\udcff")
    session.submit(options, b"", (), [promise])
    assert session.wait_until(lambda: waiting.future.done() and promise.is_told(), PATIENCE_S)
    answer = waiting.future.result(0)
    assert isinstance(answer, m.Answer)
    assert "AskHistory cannot be sent: can't serialize ints" in answer.error
    assert promise.statuses == [m.Status.REFUSED]
    assert answered(session).clients == 1
    assert not session.outstanding()


def test_who_sleeps_until_a_task_is_accepted_is_woken(site: Site) -> None:
    """One thread reads, the other sleeps: nothing but the acceptance comes."""
    session = site.session()
    done = threading.Event()

    def read() -> object:
        return session.wait_until(done.is_set, PATIENCE_S)

    def sleep() -> object:
        began = time.monotonic()
        task = session.submit(NO_FUNCTION, b"", (), [Told()])
        is_accepted = session.wait_until(lambda: session.is_accepted([task]), PATIENCE_S)
        took_s = time.monotonic() - began
        done.set()
        session.notify()
        return is_accepted and took_s < PATIENCE_S / 2

    assert in_threads(read, sleep) == [True, True]


def test_a_listener_that_raises_stops_no_other(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    session = site.session()
    heard = threading.Event()

    def fail(joined: object, left: object) -> None:
        raise RuntimeError("not my day")

    session.add_engine_listener(fail)
    session.add_engine_listener(lambda joined, left: heard.set())
    engine = site.network.dial(Role.ENGINE)
    with closing(engine):
        hello = m.EngineHello(EngineKey("e"), b"s", VERSIONS, "h", HostKey(""), 1, NO_ENGINE, [], 0)
        engine.send(codec.encode(1, 0, 0, [hello]))
        assert session.wait_until(heard.is_set, PATIENCE_S)
    assert list(session.engines()) == [0]
    assert answered(session).clients == 1
    assert "not my day" in caplog.text
    assert session._reader.thread.is_alive()


def test_the_controllers_waker_is_clear_after_an_idle_step() -> None:
    network = MemoryNetwork()
    controller = Controller(cluster="c", version="1", exchange=network.exchange, store=MemoryStore())
    with closing(network), closing(controller):
        controller._waker.wake()
        controller.step(0.0)
        assert not controller._waker.clear(), "it would poll without ever sleeping"


# ---------------------------------------------------------------- credit


def test_who_does_not_keep_to_its_windows_is_refused_and_told_why(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credit, "TASK_WINDOW", 1000)
    session, other = site.session(), site.session()
    session._ledger._task_window = 1_000_000  # a defect
    promises: list[Told] = []
    try:
        for _ in range(3000):
            session.submit(NO_FUNCTION, b"", (), [promise := Told()])
            promises.append(promise)
    except ClientClosed:
        pass  # it is refused while it sends
    assert session.wait_until(lambda: session.closed and all(map(Told.is_told, promises)), PATIENCE_S)
    assert session.end_reason == (
        "the controller has refused this client: it has 2,000 unfinished tasks with 0 MiB, and goes on to "
        "send: more than 2 times the 1,000 tasks and 512 MiB that it was told"
    )
    status = answered(other)
    assert (status.clients, status.tasks.ready) == (1, 2000), "what it had sent goes on, and so do others"
    assert "refused client" in caplog.text


def test_who_submits_more_than_can_be_sent_waits(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "BACKLOG_CALLS", 100)
    monkeypatch.setattr(facing_clients, "TASK_WINDOW", 50)
    session, other = site.session(), site.session()
    sent: list[TaskId] = []

    def submit() -> None:
        for _ in range(200):
            sent.append(session.submit(NO_FUNCTION, b"", (), [Told()]))

    thread = threading.Thread(target=submit, daemon=True)
    thread.start()
    # There are no engines: tasks end by being aborted.
    while answered(other).tasks.ready < 50 or len(sent) < 151:
        assert thread.is_alive(), "it has not waited"
    assert len(sent) == 151, "those that are sent, and the backlog"
    session.withdraw(sent[:50])
    thread.join(PATIENCE_S)
    assert len(sent) == 200


# ---------------------------------------------------------------- with engines


@pytest.fixture(scope="module")
def rc() -> Iterator[ipp.Client]:
    with ipp.Cluster(n=2) as client:
        yield client


def test_eight_threads_at_once(rc: ipp.Client) -> None:
    direct, balanced = rc[:], rc.load_balanced_view()

    def call() -> object:
        return [rc[n % 2].apply_sync(pow, n, 2) for n in range(30)] == [n * n for n in range(30)]

    def call_later() -> object:
        results = [balanced.apply_async(pow, 2, n) for n in range(60)]
        return [ar.get(PATIENCE_S) for ar in reversed(results)] == [2**n for n in reversed(range(60))]

    def map_balanced() -> object:
        return all(balanced.map_sync(abs, range(-50, 0)) == list(range(50, 0, -1)) for _ in range(5))

    def map_direct() -> object:
        return all(direct.map_sync(str, range(20)) == list(map(str, range(20))) for _ in range(5))

    def iterate() -> object:
        return list(balanced.map_async(abs, iter(range(-300, 0)), chunksize=10)) == list(range(300, 0, -1))

    def abort() -> object:
        for _ in range(10):
            results = [balanced.apply_async(divmod, n, 7) for n in range(20)]
            rc.abort(results)
            for n, ar in enumerate(results):
                try:
                    assert ar.get(PATIENCE_S) == divmod(n, 7)
                except ipp.TaskAborted:
                    pass
        return True

    def wait() -> object:
        results = [direct.apply_async(len, "x" * n) for n in range(20)]
        return rc.wait(results, PATIENCE_S) and [ar.get(0) for ar in results] == [[n, n] for n in range(20)]

    def push() -> object:
        return all(
            rc[1].push({"pushed": n}).get(PATIENCE_S) is None and rc[1]["pushed"] == n for n in range(20)
        )

    found = in_threads(call, call_later, map_balanced, map_direct, iterate, abort, wait, push)
    assert found == [True] * 8
    assert rc.wait(timeout=PATIENCE_S)
    assert rc.outstanding == set()


def test_callbacks_may_call_what_blocks(rc: ipp.Client) -> None:
    view = rc.load_balanced_view()
    chained: list[Future[int]] = []
    done = threading.Event()

    def go_on(future: Future[int]) -> None:
        chained[-1:] = [future]
        rc.wait(timeout=0)
        if future.result(0) >= 1 << 20:
            done.set()
            return
        doubled = view.apply_sync(lambda x: 2 * x, future.result(0))
        assert rc[0].apply_sync(abs, -doubled) == doubled
        view.apply_async(abs, doubled).add_done_callback(go_on)

    view.apply_async(abs, 1).add_done_callback(go_on)
    assert rc.session.wait_until(done.is_set, 3 * PATIENCE_S)
    assert chained[-1].result(0) == 1 << 20


def test_callbacks_of_many_results_at_once(rc: ipp.Client) -> None:
    view = rc.load_balanced_view()
    seen: list[int] = []
    results = [view.apply_async(abs, -n) for n in range(40)]
    for ar in results:
        ar.add_done_callback(lambda ar: seen.append(rc[0].apply_sync(abs, -ar.result(0))))
    assert sorted(ar.result(0) for ar in as_completed(results, PATIENCE_S)) == list(range(40))
    assert rc.session.wait_until(lambda: len(seen) == 40, PATIENCE_S)
    assert sorted(seen) == list(range(40))


class Failing:
    """A promise with a defect."""

    def __init__(self) -> None:
        self.told = threading.Event()

    def on_result(self, result: m.TaskResult, buffers: object, /) -> None:
        self.told.set()
        raise RuntimeError("a promise that fails")

    def on_said(self, saying: object, /) -> None: ...

    def on_heard(self) -> None:
        raise RuntimeError("a listener that fails")


def test_a_promise_that_raises_keeps_no_other_from_its_owner(
    rc: ipp.Client, caplog: pytest.LogCaptureFixture
) -> None:
    view, failing = rc.load_balanced_view(), [Failing() for _ in range(5)]
    results = []
    for number, promise in enumerate(failing):
        call = view._calls().call(lambda: print("x" * 40_000), (), {})
        rc.session.submit(*call, [promise])
        results.append(view.apply_async(abs, -number))
    assert [ar.get(PATIENCE_S) for ar in results] == list(range(5))
    for promise in failing:
        assert rc.session.wait_until(promise.told.is_set, PATIENCE_S)
    assert rc.wait(timeout=PATIENCE_S)
    assert "a promise that fails" in caplog.text
    assert view.apply_sync(abs, -7) == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_is_refused_and_its_parent_goes_on(rc: ipp.Client) -> None:
    pending = rc[0].apply_async(pow, 3, 3)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = []
        for call in (
            lambda: rc[0].apply_sync(abs, -1),
            lambda: rc.ids,
            lambda: rc.load_balanced_view().map_sync(abs, [1]),
            lambda: rc.session,
        ):
            try:
                call()
                said.append("it may")
            except ForkedClientError as error:
                said.append(str(error))
            except BaseException as error:
                said.append(repr(error))
        rc.close()
        os.write(writing, "\n".join(said).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as report:
        said = report.read().split("\n")
    assert os.waitpid(child, 0)[1] == 0
    sentence = (
        f"this client belongs to process {os.getpid()} and cannot be used in its forked child {child}; "
        "make a new one there with Client()"
    )
    assert said == [sentence] * 4
    assert pending.get(PATIENCE_S) == 27
    assert rc[:].apply_sync(abs, -1) == [1, 1]
