"""Orders between supervisor and parent: whole, in order, never blocking, and heard to the last."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from enginery.host.orders import (
    EngineEnded,
    EngineNotStarted,
    EngineStarted,
    FromSupervisor,
    Left,
    OrderSocket,
    StartEngine,
    ToSupervisor,
)
from enginery.host.starters import Gate
from enginery.ids import EngineId, EngineKey
from enginery.protocol.specs import EngineSpec

KEY = EngineKey("0123456789abcdef")
SPEC = EngineSpec(cluster="c", connection_file="/x/engine.json", key=KEY, wanted=EngineId(3))


class Pair:
    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.parent: OrderSocket[FromSupervisor] = OrderSocket.of_parent(ours)
        self.supervisor: OrderSocket[ToSupervisor] = OrderSocket.of_supervisor(theirs)


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.parent.close()
    pair.supervisor.close()


def test_orders_arrive_in_order(pair: Pair) -> None:
    assert pair.parent.receive() == []
    pair.supervisor.send(StartEngine(SPEC, 1))
    pair.supervisor.send(Left("it had to"))
    assert pair.parent.receive() == [StartEngine(SPEC, 1), Left("it had to")]
    pair.parent.send(EngineEnded(KEY, -9))
    assert pair.supervisor.receive() == [EngineEnded(KEY, -9)]


def test_a_side_that_does_not_listen_blocks_nobody(pair: Pair) -> None:
    orders = [EngineNotStarted(KEY, str(number) * 5000) for number in range(500)]
    for order in orders:
        pair.parent.send(order)
    assert pair.parent.wants_write
    received: list[ToSupervisor] = []
    while pair.parent.wants_write:
        received += pair.supervisor.receive()
        pair.parent.flush()
    received += pair.supervisor.receive()
    assert received == orders


def test_flushing_waits_for_a_bounded_time(pair: Pair) -> None:
    while not pair.parent.wants_write:
        pair.parent.send(EngineNotStarted(KEY, "x" * 5000))
    pair.parent.flush(timeout_s=0.01)
    assert pair.parent.wants_write


def test_the_last_word_is_heard_by_who_could_not_answer(pair: Pair) -> None:
    pair.supervisor.send(Left())
    pair.supervisor.close()
    pair.parent.send(EngineEnded(KEY, 0))  # nobody is there
    assert not pair.parent.wants_write
    assert not pair.parent.ended
    assert pair.parent.receive() == [Left()]
    assert pair.parent.ended
    pair.parent.send(EngineEnded(KEY, 0))


def test_the_last_word_is_heard_from_who_did_not_listen(pair: Pair) -> None:
    pair.parent.send(EngineEnded(KEY, 0))
    pair.supervisor.send(Left())
    pair.supervisor.close()  # with the parent's record unread: the system resets the connection
    assert pair.parent.receive() == [Left()]
    assert pair.parent.ended


def test_descriptors_come_with_their_records(pair: Pair) -> None:
    pipes = [os.pipe() for _ in range(150)]
    for number, (reading, _) in enumerate(pipes):
        pair.parent.send(EngineStarted(KEY, number), [reading])
    pair.parent.send(EngineEnded(KEY, 0))
    *started, ended = pair.supervisor.receive()
    assert isinstance(ended, EngineEnded)
    for order, (_, writing) in zip(started, pipes, strict=True):
        assert isinstance(order, EngineStarted)
        (reading,) = pair.supervisor.take_descriptors(1)
        assert not os.get_inheritable(reading)
        os.write(writing, str(order.pid).encode())
        os.close(writing)
        assert os.read(reading, 100) == str(order.pid).encode()
        os.close(reading)
    assert pair.supervisor.take_descriptors(1) == []


def test_many_descriptors_that_had_to_wait(pair: Pair) -> None:
    while not pair.parent.wants_write:
        pair.parent.send(EngineNotStarted(KEY, "x" * 5000))
    pipes = [os.pipe() for _ in range(300)]
    for number, (reading, _) in enumerate(pipes):
        pair.parent.send(EngineStarted(KEY, number), [reading])
    taken: list[int] = []
    while len(taken) < len(pipes):
        for order in pair.supervisor.receive():
            if isinstance(order, EngineStarted):
                taken += pair.supervisor.take_descriptors(1)
                assert len(taken) == order.pid + 1
        pair.parent.flush()
    for reading, (_, writing) in zip(taken, pipes, strict=True):
        assert os.fstat(reading).st_ino == os.fstat(writing).st_ino
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("is_sent", [True, False])
def test_descriptors_that_nobody_takes_are_closed(pair: Pair, is_sent: bool) -> None:
    reading, writing = os.pipe()
    if is_sent:
        pair.parent.send(EngineStarted(KEY, 1), [reading])
        pair.supervisor.receive()
    pair.supervisor.close()
    if not is_sent:
        pair.parent.send(EngineStarted(KEY, 1), [reading])
    with pytest.raises(BrokenPipeError):
        os.write(writing, b"x")
    os.close(writing)


def test_repr(pair: Pair) -> None:
    assert repr(pair.parent) == "<OrderSocket, 0 bytes waiting>"
    pair.parent.close()
    pair.parent.close()
    assert repr(pair.parent) == "<OrderSocket ended, 0 bytes waiting>"


def test_a_gate_holds_a_forked_child_until_it_is_opened() -> None:
    gate = Gate()
    done_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        gate.let_go()
        gate.pass_through()
        os.write(write_fd, b"through")
        os._exit(0)
    os.close(write_fd)
    os.set_blocking(done_fd, False)
    with pytest.raises(BlockingIOError):
        os.read(done_fd, 10)
    gate.open()
    os.set_blocking(done_fd, True)
    assert os.read(done_fd, 10) == b"through"
    assert os.waitpid(pid, 0)[1] == 0
    os.close(done_fd)
