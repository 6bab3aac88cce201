"""The engine's control thread on a network without sockets: take-backs, the end, and much text."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from enginery.engine.control import Calls, ControlThread
from enginery.engine.output import OutputCollector, TaskStream
from enginery.ids import EngineId, EngineKey, TaskId
from enginery.protocol import codec
from enginery.protocol import messages as m
from enginery.transport import clock
from enginery.transport.channel import Role, Route, Waker
from enginery.transport.memory import MemoryNetwork

PATIENCE_S = 10.0


class Site:
    """A control thread, and the controller's end of its connection by hand."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.waker = Waker()
        self.output = OutputCollector(self.waker.wake)
        self.stdout = TaskStream(self.output, "stdout", 1)
        self.stopped = threading.Event()
        self.control = ControlThread(
            self.network.dial(Role.ENGINE),
            key=EngineKey("e"),
            secret=b"s",
            waker=self.waker,
            output=self.output,
            take_back=self._take_back,
            on_stop=self.stopped.set,
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


def test_it_stops_the_engine_and_says_goodbye(site: Site) -> None:
    site.bind()
    site.say(m.StopEngine())
    assert site.stopped.wait(PATIENCE_S)
    site.output.begin(TaskId(1))
    site.stdout.write("last words")
    site.stop()
    assert site.hear(2) == [m.EngineOutput(TaskId(1), "stdout", "last words"), m.Goodbye()]


def test_text_that_utf_8_cannot_say_does_not_end_it(site: Site) -> None:
    site.bind()
    site.output.begin(TaskId(1))
    site.stdout.write("x\udcff")
    assert site.hear() == [m.EngineOutput(TaskId(1), "stdout", "x\\udcff")]
    site.stdout.write("y" * 10)
    assert site.hear() == [m.EngineOutput(TaskId(1), "stdout", "y" * 10)]


def test_much_text_that_has_gathered_is_cut_into_messages(site: Site) -> None:
    """Text waits until there is a connection; then all of it is there at once."""
    assert site.hear() == [m.ControlHello(EngineKey("e"), b"s")]
    for number in range(60):
        site.output.begin(TaskId(number))
        site.stdout.write("€" * 40_000)
        assert site.output.end() == ("", "", 2)
    site.say(m.ControlWelcome(EngineId(0)))
    said = site.hear(120)
    assert all(isinstance(record, m.EngineOutput) for record in said)
    for number in range(60):
        texts = [record.text for record in said if record.task == number]  # type: ignore[attr-defined]
        assert "".join(texts) == "€" * 40_000
    assert max(site.headers) <= m.MESSAGE_LIMIT
