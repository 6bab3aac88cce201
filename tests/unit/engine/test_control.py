"""The engine's control thread on a network without sockets: orders, the end, texts and values."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from enginery.core.workload import Attempt
from enginery.engine import control
from enginery.engine.control import Calls, ControlThread
from enginery.engine.outcome import RowFailures
from enginery.engine.output import Ending, OutputCollector
from enginery.engine.progress import ProgressMeter
from enginery.engine.publishing import NAME_LIMIT, VALUE_LIMIT_BYTES, Outlet
from enginery.engine.streams import TaskStream
from enginery.engine.threads import TaskThreads
from enginery.ids import EngineId, EngineKey, TaskId
from enginery.protocol import codec
from enginery.protocol import messages as m
from enginery.transport import clock
from enginery.transport.channel import Role, Route, Waker
from enginery.transport.memory import MemoryNetwork

PATIENCE_S = 10.0


class Interruptions:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.said: list[object] = []
        self.deadline: float | None = None
        self.ticked = threading.Event()

    def end_calls(self, calls: Calls, grace_s: float) -> tuple[Calls, Calls]:
        self.said.append(("end", calls, grace_s))
        return calls[1:], calls[:1]

    def skip_items(self, attempt: Attempt, items: list[int]) -> None:
        self.said.append(("skip", attempt, items))

    def held_for(self, controller: str) -> Calls | None:
        return [(TaskId(7), 1)] if controller == "another" else None

    def interrupt(self) -> None:
        self.said.append("interrupt")

    def set_grace(self, grace_s: float) -> None:
        self.said.append(("grace", grace_s))

    def next_deadline(self) -> float | None:
        return self.deadline

    def on_tick(self, *, now: float) -> None:
        if self.deadline is not None and now >= self.deadline:
            self.deadline = None
            self.ticked.set()


class Site:
    """A control thread, and the controller's end of its connection by hand."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.waker = Waker()
        self.threads = TaskThreads()
        self.output = OutputCollector(self.waker.wake, self.threads)
        self.progress = ProgressMeter(self.waker.wake, self.threads)
        self.stdout = TaskStream(self.output, "stdout", 1)
        self.stopped = threading.Event()
        self.failed = threading.Event()
        self.cleared: list[str] = []
        self.interruptions = Interruptions()
        self.control = ControlThread(
            self.network.dial(Role.ENGINE),
            key=EngineKey("e"),
            secret=b"s",
            waker=self.waker,
            outlet=Outlet(self.output, self.progress),
            take_back=self._take_back,
            interruptions=self.interruptions,
            clear=lambda: self.cleared.append(threading.current_thread().name),
            tell_memory=lambda free: (m.MemoryUse(7, [m.NamedObject("a", "int", 7)]), free),
            on_stop=self.stopped.set,
            on_failed=self.failed.set,
            parent_pid=0,
        )
        self.headers: list[int] = []
        self._decoder = codec.from_control()
        self._heard: list[m.Record] = []
        self._route: Route | None = None
        self._number = 0
        self._has_ended = False
        self.control.start()

    def _take_back(self, calls: Calls) -> tuple[Calls, Calls]:
        return calls[:1], calls[1:]

    def say(self, *records: m.Record) -> None:
        assert self._route is not None
        self.network.exchange.send(self._route, codec.encode(1, self._number, 0, records))
        self._number += 1

    def hear(self, count: int = 1) -> list[m.Record]:
        """The next records, whenever they come."""
        deadline = clock.now() + PATIENCE_S
        while len(self._heard) < count:
            assert clock.now() < deadline, self._heard
            self.network.exchange.wait(deadline - clock.now())
            for incoming in self.network.exchange.drain():
                self._route = incoming.route
                self.headers.append(len(incoming.header))
                self._heard += self._decoder.decode(incoming.header, incoming.frames).records
        heard, self._heard = self._heard[:count], self._heard[count:]
        return heard

    def welcome(self) -> None:
        assert self.hear() == [m.ControlHello(EngineKey("e"), b"s")]
        self.say(m.ControlWelcome(EngineId(0)))

    def bind(self) -> None:
        """Welcome it, and know that it has heard so."""
        self.welcome()
        self.say(m.TakeBack([]))
        assert self.hear() == [m.TakenBack([], [])]

    def stop(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            self.control.stop()

    def end(self) -> None:
        self.stop()
        self.network.close()
        self.waker.close()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.end()


def test_it_gives_tasks_back(site: Site) -> None:
    site.bind()
    calls = [(TaskId(1), 1), (TaskId(2), 1)]
    site.say(m.TakeBack(calls))
    assert site.hear() == [m.TakenBack(calls[:1], calls[1:])]
    assert repr(site.control) == "<ControlThread, <Dialer bound, epoch 1>>"


def test_it_has_what_runs_interrupted_and_answers_what_wants_an_answer(site: Site) -> None:
    site.welcome()
    calls = [(TaskId(1), 1), (TaskId(2), 1)]
    site.say(m.EndCalls(calls, 2.5), m.SkipItems(TaskId(1), 1, [3]), m.Interrupt(9))
    assert site.hear(2) == [m.TakenBack(calls[1:], calls[:1]), m.Obeyed(9)]
    assert site.interruptions.said == [
        ("grace", -1.0),
        ("end", calls, 2.5),
        ("skip", (TaskId(1), 1), [3]),
        "interrupt",
    ]


def test_it_wakes_up_to_knock(site: Site) -> None:
    site.bind()
    site.interruptions.deadline = clock.now()
    site.waker.wake()
    assert site.interruptions.ticked.wait(PATIENCE_S)


def test_it_says_how_far_a_task_is(site: Site) -> None:
    site.bind()
    site.threads.begin(TaskId(1), 2)
    site.progress.begin(TaskId(1), 2)
    site.progress.report(0.25, "a quarter")
    assert site.hear() == [m.EngineProgress(TaskId(1), 2, report=m.Report(0.25, "a quarter"))]
    values = [1, 2, 3]
    site.progress.watch_rows(10, values, RowFailures())
    assert site.hear() == [m.EngineProgress(TaskId(1), 2, 10, 3, report=m.Report(0.25, "a quarter"))]
    site.progress.end()


def test_what_was_reported_before_it_is_connected_is_said_then(site: Site) -> None:
    site.threads.begin(TaskId(1))
    site.progress.begin(TaskId(1), 1)
    site.progress.report(0.5, "half")
    site.bind()
    assert site.hear() == [m.EngineProgress(TaskId(1), 1, report=m.Report(0.5, "half"))]


def test_it_clears_the_namespace_whatever_runs_and_as_often_as_it_is_told(site: Site) -> None:
    site.bind()
    site.output.begin(TaskId(1))
    site.say(m.ClearNamespace(7), m.ClearNamespace(7), m.ClearNamespace(8))
    assert site.hear(3) == [m.Obeyed(7), m.Obeyed(7), m.Obeyed(8)]
    assert site.cleared == ["enginery-control"] * 3


def test_it_tells_what_the_engine_holds(site: Site) -> None:
    site.bind()
    site.say(m.ReportMemory(3), m.ReportMemory(4, free=True))
    use = m.MemoryUse(7, [m.NamedObject("a", "int", 7)])
    assert site.hear(2) == [m.EngineMemory(3, use, False), m.EngineMemory(4, use, True)]


def test_values_leave_while_the_task_runs_in_order_with_its_text(site: Site) -> None:
    site.bind()
    site.output.begin(TaskId(1))
    site.stdout.write("before")
    site.output.publish("loss", b"1")
    said = site.hear(2)
    assert said == [
        m.EngineOutput(TaskId(1), "stdout", "before", 1, 1),
        m.EngineData(TaskId(1), "loss", b"1"),
    ]
    site.output.publish("loss", b"2")
    assert site.hear() == [m.EngineData(TaskId(1), "loss", b"2")]


def test_displays_leave_in_order_with_the_text(site: Site) -> None:
    site.bind()
    site.output.begin(TaskId(1))
    site.output.show("display_data", b"1")
    site.stdout.write("between")
    site.output.show("clear_output", b"2")
    assert site.hear(3) == [
        m.EngineDisplay(TaskId(1), "display_data", b"1", 0, True, 1, 1),
        m.EngineOutput(TaskId(1), "stdout", "between", 1, 2),
        m.EngineDisplay(TaskId(1), "clear_output", b"2", 0, True, 1, 3),
    ]


def test_values_do_not_wait_for_texts_to_gather(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "GATHER_S", 2 * PATIENCE_S)
    site.bind()
    site.output.begin(TaskId(1))
    site.stdout.write("gathers")
    site.output.publish("x", b"1")
    assert site.hear(2)[1] == m.EngineData(TaskId(1), "x", b"1")


def test_of_many_values_without_a_connection_the_last_one_is_kept(site: Site) -> None:
    """A task that publishes in a loop fills no memory while the controller is away."""
    assert site.hear() == [m.ControlHello(EngineKey("e"), b"s")]
    site.output.begin(TaskId(1))
    for number in range(100):
        site.output.publish("x", b"%d" % number)
        if number % 10 == 0:
            site.output.gather()
    site.output.publish("y", b"other")
    site.output.gather()
    assert len(site.output._pieces) == 2
    site.say(m.ControlWelcome(EngineId(0)))
    assert site.hear(2) == [m.EngineData(TaskId(1), "x", b"99"), m.EngineData(TaskId(1), "y", b"other")]


def test_the_largest_value_fits_into_a_message(site: Site) -> None:
    site.bind()
    site.output.begin(TaskId(1))
    name = "\N{GRINNING FACE}" * NAME_LIMIT
    for number in (1, 2, 3):
        site.output.publish(f"{number}{name}"[:NAME_LIMIT], bytes(VALUE_LIMIT_BYTES))
    assert [type(record) for record in site.hear(3)] == [m.EngineData] * 3
    assert max(site.headers) <= m.MESSAGE_LIMIT


def test_it_stops_the_engine_and_says_goodbye(site: Site) -> None:
    site.bind()
    site.say(m.StopEngine())
    assert site.stopped.wait(PATIENCE_S)
    site.output.begin(TaskId(1))
    site.stdout.write("last words")
    site.stop()
    assert site.hear(2) == [m.EngineOutput(TaskId(1), "stdout", "last words", 1, 1), m.Goodbye()]


def test_text_that_utf_8_cannot_say_does_not_end_it(site: Site) -> None:
    site.bind()
    site.output.begin(TaskId(1))
    site.stdout.write("x\udcff")
    assert site.hear() == [m.EngineOutput(TaskId(1), "stdout", "x\\udcff", 1, 1)]
    site.stdout.write("y" * 10)
    assert site.hear() == [m.EngineOutput(TaskId(1), "stdout", "y" * 10, 1, 2)]


def test_much_text_that_has_gathered_is_cut_into_messages(site: Site) -> None:
    """Text waits until there is a connection; then all of it is there at once."""
    assert site.hear() == [m.ControlHello(EngineKey("e"), b"s")]
    for number in range(60):
        site.output.begin(TaskId(number))
        site.stdout.write("€" * 40_000)
        assert site.output.end() == Ending(outputs=2)
    site.say(m.ControlWelcome(EngineId(0)))
    said = site.hear(120)
    assert all(isinstance(record, m.EngineOutput) for record in said)
    for number in range(60):
        texts = [record.text for record in said if record.task == number]  # type: ignore[attr-defined]
        assert "".join(texts) == "€" * 40_000
    assert max(site.headers) <= m.MESSAGE_LIMIT


class Trouble(Exception):
    pass


def raise_trouble() -> None:
    raise Trouble("no descriptor left")


@pytest.mark.parametrize("is_leaving", [False, True])
def test_its_failure_is_logged_and_ends_the_engine(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, is_leaving: bool
) -> None:
    site.bind()
    if is_leaving:
        monkeypatch.setattr(site.control, "_send_output", raise_trouble)
        site.stop()
    else:
        monkeypatch.setattr(site.control, "_clear", raise_trouble)
        site.say(m.ClearNamespace(1))
        assert site.failed.wait(PATIENCE_S)
        site.stop()
    assert site.failed.is_set() == (not is_leaving), "one that leaves goes on with that"
    (record,) = caplog.records
    assert record.getMessage() == "the control thread has failed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], Trouble)
