"""The lane for real: strangers, hostile bytes, slow readers, dead peers, forks, and what is left."""

import contextlib
import errno
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest
import zmq.utils.garbage

from enginery.errors import LaunchError, TooLarge
from enginery.protocol.messages import FRAME_LIMIT, MESSAGE_LIMIT
from enginery.transport import lane, lane_listener
from enginery.transport.addresses import ClusterDirectory
from enginery.transport.channel import Channel, Delivery, Incoming, Rejected, Role, Waker
from enginery.transport.connection_file import ConnectionInfo, load, publish
from enginery.transport.dialling import ChannelFactory, ZmqChannel, dial
from enginery.transport.exchange import open_exchange
from enginery.transport.keys import ClusterKeys
from enginery.transport.lane import Inflow, LaneViolation, Message, Outflow, make_greeting
from enginery.transport.lane_channel import FIRST_PAUSE_S, LaneChannel

PATIENCE_S = 10.0

pytestmark = pytest.mark.skipif(not lane.lane_is_supported(), reason="no lane on this system")


class Server:
    """An exchange with a lane, and its connection files."""

    def __init__(self, runtime: Path) -> None:
        self.directory = ClusterDirectory("lane", runtime=runtime).create()
        self.keys = ClusterKeys.generate()
        self.open()
        exchange = self.exchange
        self.files = publish(
            self.directory,
            self.keys,
            tcp=exchange.tcp_addresses,
            ipc=exchange.ipc_address,
            lane=exchange.lane_path,
        )

    def open(self) -> None:
        self.exchange = open_exchange(
            self.keys, self.directory.ipc_path(), lane_path=self.directory.lane_path()
        )

    def info(self, role: Role = Role.CLIENT) -> ConnectionInfo:
        return load(self.files[role])

    def dial(self, role: Role = Role.CLIENT, **changes: object) -> LaneChannel:
        channel = dial(msgspec.structs.replace(self.info(role), **changes), same_host=True)
        assert isinstance(channel, LaneChannel)
        return channel

    def connect(self, role: Role | None = None) -> socket.socket:
        """A bare connection; with a role, one that has said its greeting."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE_S)
        connection.connect(self.exchange.lane_path)
        if role is not None:
            connection.sendall(make_greeting(self.info(role).credentials()))
        return connection

    def take(self, timeout_s: float = PATIENCE_S) -> Incoming | None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            message = self.exchange.receive()
            if message is not None:
                return message
            self.exchange.wait(0.05)
        return None

    def serve_until(self, reached: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not reached():
            assert time.monotonic() < deadline
            self.exchange.wait(0.01)

    def take_rejection(self) -> Rejected:
        self.serve_until(lambda: self.exchange.statistics()["rejected"] > 0)
        found = self.exchange.rejections()
        assert self.exchange.receive() is None
        assert self.exchange.statistics()["rejected"] == len(found) == 1
        return found[0]

    def introduce(self, role: Role = Role.CLIENT) -> tuple[LaneChannel, Incoming]:
        channel = self.dial(role)
        assert channel.send(b"hello")
        message = self.take()
        assert message is not None
        assert bytes(message.header) == b"hello"
        return channel, message

    def assert_serves(self) -> None:
        channel, message = self.introduce(Role.ENGINE)
        assert self.exchange.send(message.route, b"welcome") is Delivery.SENT
        assert take_below(channel) == (b"welcome", [])
        channel.close()

    def close(self) -> None:
        self.exchange.close()
        self.directory.remove()


@pytest.fixture(scope="module", autouse=True)
def _pyzmq_keeps_no_thread() -> Iterator[None]:
    yield
    zmq.utils.garbage.gc.stop()


@pytest.fixture
def server(runtime_directory: Path) -> Iterator[Server]:
    made = Server(runtime_directory)
    yield made
    made.close()


def take_below(channel: Channel) -> tuple[bytes, list[bytes]]:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        message = channel.receive()
        if message is not None:
            return bytes(message[0]), [bytes(frame) for frame in message[1]]
        channel.wait(0.2)
    pytest.fail("no message")


def ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(4096) == b""
    except ConnectionError:
        return True


def encoded(header: bytes, frames: list[bytes] | None = None) -> bytes:
    """What an outflow puts on the wire."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Outflow().send(ours, header, frames or [])
        return theirs.recv(1 << 20)


# ---------------------------------------------------------------- bytes


def test_a_message_on_the_wire() -> None:
    assert encoded(b"head", [b"ab", b""]) == (
        b"\xe9\x02\x00\x04\x00\x00\x00" + struct.pack("<II", 2, 0) + b"headab"
    )
    assert encoded(b"head") == b"\xe9\x00\x00\x04\x00\x00\x00head"


@pytest.mark.parametrize("step", [1, 2, 7, 1000, 70_000, 1 << 20])
def test_messages_are_cut_wherever_the_reads_end(step: int) -> None:
    sent: list[tuple[bytes, list[bytes]]] = [
        (b"one", []),
        (b"", [b""]),
        (b"h" * 300, [b"x" * 40_000, b"", b"y" * 40_000]),
        (b"z" * 70_000, []),
        (b"last", [b"1", b"2"]),
    ]
    stream = b"".join(encoded(*message) for message in sent)
    if step < 7:
        sent, stream = [sent[0], sent[1], sent[4]], b"".join(encoded(*sent[i]) for i in (0, 1, 4))
    inflow = Inflow()
    messages: deque[Message] = deque()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        for start in range(0, len(stream), step):
            theirs.sendall(stream[start : start + step])
            with contextlib.suppress(BlockingIOError):
                while inflow.read(ours, messages):
                    pass
    assert [(bytes(header), [bytes(frame) for frame in frames]) for header, frames in messages] == sent
    assert not inflow._held
    assert not inflow._sizes


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("<BHI", 0xE9, 0, MESSAGE_LIMIT + 1),
        struct.pack("<BHI", 0xE9, lane.FRAMES_LIMIT + 1, 0),
        struct.pack("<BHIII", 0xE9, 2, 5, 1, MESSAGE_LIMIT + 1),
        bytes(7),
    ],
)
def test_what_is_no_message_is_a_violation_before_anything_is_allocated(data: bytes) -> None:
    with pytest.raises(LaneViolation):
        Inflow().feed(data, deque())


def test_what_the_kernel_does_not_take_waits_in_order() -> None:
    ours, theirs = socket.socketpair()
    outflow, inflow = Outflow(), Inflow()
    messages: deque[Message] = deque()
    frame = bytearray(b"f" * 60_000)
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        for number in range(100):
            outflow.send(ours, number.to_bytes(4, "big"), [frame, b"g" * 100_000])
        assert outflow
        frame[:] = b"?" * 60_000  # small frames were copied
        while outflow or len(messages) < 100:
            outflow.flush(ours)
            with contextlib.suppress(BlockingIOError):
                inflow.read(theirs, messages)
    assert [int.from_bytes(header, "big") for header, _ in messages] == list(range(100))
    assert all(frames[0] == b"f" * 60_000 and frames[1] == b"g" * 100_000 for _, frames in messages)


# ---------------------------------------------------------------- who comes in


@pytest.mark.parametrize("token", ["wrong", "x" * 1000, ""])
def test_a_wrong_token_is_turned_away(server: Server, token: str) -> None:
    channel = server.dial(token=token)
    channel.send(b"let me in")
    rejected = server.take_rejection()
    assert rejected.reason == "its token is not one of this cluster"
    assert f"process {os.getpid()} " in rejected.peer
    assert channel.wait(PATIENCE_S) is False
    assert channel.broken
    channel.close()
    server.assert_serves()


def test_a_token_of_another_role_is_turned_away(server: Server) -> None:
    channel = server.dial(token=server.info(Role.ENGINE).token)
    channel.send(b"let me in")
    assert server.take_rejection().reason == "its token is not one of this cluster"
    channel.close()


def test_who_is_turned_away_does_not_hammer(server: Server) -> None:
    channel = server.dial(token="wrong")
    begin = time.monotonic()
    while time.monotonic() - begin < 0.5:
        channel.wait(0.01)
        if channel.broken:
            channel.redial()
        server.exchange.wait(0)
    assert 2 <= server.exchange.statistics()["rejected"] <= 7  # pauses double from FIRST_PAUSE_S
    channel.close()


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"\0", b"\xff" * 100_000, encoded(b"x"), b"\xe8lane\1\xff\xff\xff"]
)
def test_strange_bytes_are_one_rejection(server: Server, data: bytes) -> None:
    with server.connect() as stranger:
        stranger.setblocking(False)
        with contextlib.suppress(OSError):
            stranger.send(data)
        assert server.take_rejection().reason in (
            "it did not begin with a greeting",
            "its greeting is too long",
        )
        stranger.settimeout(PATIENCE_S)
        assert ended(stranger)
    server.assert_serves()


@pytest.mark.parametrize("size", [0, 5, 20])
def test_half_a_greeting_and_silence_is_ended_in_time(
    server: Server, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_listener, "HANDSHAKE_S", 0.2)
    with server.connect() as stranger:
        stranger.sendall(make_greeting(server.info().credentials())[:size])
        assert server.take_rejection().reason == "it did not say who it is in time"
        assert ended(stranger)
    server.assert_serves()


def test_who_leaves_within_the_greeting_is_a_rejection(server: Server) -> None:
    server.connect().close()
    assert server.take_rejection().reason == "it left before it had said who it is"


def test_another_user_is_turned_away(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_listener, "peer_of", lambda connection: (7, os.getuid() + 1))
    with server.connect(Role.CLIENT) as stranger:
        rejected = server.take_rejection()
        assert rejected == Rejected("it belongs to another user", f"process 7 of user {os.getuid() + 1}")
        assert ended(stranger)


def test_without_a_descriptor_newcomers_wait(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, listener: socket.socket) -> None:
            self.listener = listener
            self.refusals = 2

        def accept(self) -> object:
            if self.refusals:
                self.refusals -= 1
                raise OSError(24, "Too many open files")
            return self.listener.accept()

        def __getattr__(self, name: str) -> object:
            return getattr(self.listener, name)

    listener = server.exchange._lane  # type: ignore[union-attr]
    monkeypatch.setattr(listener, "_listener", Full(listener._listener))
    channel = server.dial()
    channel.send(b"patient")
    message = server.take()
    assert message is not None
    assert bytes(message.header) == b"patient"
    reasons = [rejected.reason for rejected in server.exchange.rejections()]
    assert reasons == ["it cannot be let in: Too many open files"] * 2
    channel.close()


# ---------------------------------------------------------------- peers that misbehave


@pytest.mark.parametrize(
    "data", [b"\xe9\xff\xff" + bytes(50), b"garbage", struct.pack("<BHI", 0xE9, 0, 1 << 31)]
)
def test_hostile_bytes_end_one_connection(server: Server, data: bytes) -> None:
    with server.connect(Role.CLIENT) as peer:
        peer.sendall(encoded(b"good", [b"frame"]) + data)
        message = server.take()
        assert message is not None
        assert (bytes(message.header), bytes(message.frames[0])) == (b"good", b"frame")
        assert server.take_rejection().reason == "it sent what is no message"
        assert server.exchange.send(message.route, b"x") is Delivery.GONE
        assert ended(peer)
    server.assert_serves()


def test_half_a_message_and_silence_disturbs_nobody(server: Server) -> None:
    with server.connect(Role.CLIENT) as peer:
        peer.sendall(struct.pack("<BHII", 0xE9, 1, 3, FRAME_LIMIT) + b"abc" + bytes(1000))
        for _ in range(3):
            server.assert_serves()
        rest = threading.Thread(target=peer.sendall, args=(bytes(FRAME_LIMIT - 1000),))
        rest.start()
        message = server.take()
        rest.join(PATIENCE_S)
        assert message is not None
        assert (bytes(message.header), len(message.frames[0])) == (b"abc", FRAME_LIMIT)
        peer.sendall(encoded(b"torn")[:-1])
    server.serve_until(lambda: server.exchange.send(message.route, b"") is Delivery.GONE)
    assert server.exchange.receive() is None
    server.assert_serves()


def test_a_route_is_never_used_again(server: Server) -> None:
    routes = set()
    for _ in range(5):
        channel, message = server.introduce()
        routes.add(message.route)
        channel.close()
    assert len(routes) == 5


def test_last_words_come_before_the_end(server: Server) -> None:
    channel, first = server.introduce()
    for number in range(3):
        channel.send(b"%d" % number)
    channel.close()
    server.exchange.wait(PATIENCE_S)
    for number in range(3):
        message = server.take()
        assert message is not None
        assert (bytes(message.header), message.route) == (b"%d" % number, first.route)
        if number < 2:
            assert (
                server.exchange.send(first.route, b"x") is Delivery.SENT
            )  # lost, but not gone before its words
    server.serve_until(lambda: server.exchange.send(first.route, b"") is Delivery.GONE)


# ---------------------------------------------------------------- much, and slow readers


def test_a_hundred_megabytes_arrive_at_an_exchange_that_was_away(server: Server) -> None:
    """The owner of the channel does nothing after its sends: it may run user code for an hour."""
    channel, _ = server.introduce()
    frames = [bytes([number]) * FRAME_LIMIT for number in range(100)]
    for number, frame in enumerate(frames):
        assert channel.send(b"%d" % number, [frame])  # nobody reads before all of them are sent
    before = psutil.Process().memory_info().rss
    for number, frame in enumerate(frames):
        message = server.take()
        assert message is not None
        assert (bytes(message.header), message.frames) == (b"%d" % number, [frame])
        assert message.frames[0].readonly  # type: ignore[union-attr]
        del message
    assert psutil.Process().memory_info().rss - before < 32 << 20
    channel.close()


def test_a_hundred_megabytes_arrive_at_a_slow_reader(server: Server) -> None:
    channel, hello = server.introduce(Role.ENGINE)
    frames = [bytes([number]) * FRAME_LIMIT for number in range(100)]
    for number, frame in enumerate(frames):
        assert server.exchange.send(hello.route, b"%d" % number, [frame]) is Delivery.SENT
    other, _ = server.introduce()  # nobody else waits for it
    other.close()
    stop = Waker()
    received: list[bool] = []

    def read() -> None:
        for number, frame in enumerate(frames):
            header, got = take_below(channel)
            received.append(header == b"%d" % number and got == [frame])
        stop.wake()

    reader = threading.Thread(target=read)
    reader.start()
    server.serve_until(stop.clear, timeout_s=30)
    reader.join(PATIENCE_S)
    assert received == [True] * 100
    stop.close()
    channel.close()


def test_what_nobody_takes_stays_outside(server: Server) -> None:
    """While messages are left, a flood is not read."""
    channel, _ = server.introduce()
    for _ in range(64):
        channel.send(b"x", [bytes(FRAME_LIMIT)])
    before = psutil.Process().memory_info().rss
    for _ in range(200):
        server.exchange.wait(0.01)
    assert psutil.Process().memory_info().rss - before < 16 << 20
    channel.close()


def test_what_is_too_large_is_refused_before_it_is_sent(server: Server) -> None:
    channel, hello = server.introduce()
    big = bytes(MESSAGE_LIMIT + 1)
    for send in (channel.send, lambda *message: server.exchange.send(hello.route, *message)):
        with pytest.raises(TooLarge, match=r"a frame has 1\.1 MiB"):
            send(b"x", [big])
        with pytest.raises(TooLarge, match="the header of a message"):
            send(big)
        with pytest.raises(ValueError, match=r"8,193 frames cannot be sent; 8,192 are allowed"):
            send(b"x", [b""] * 8193)
    assert not channel.broken
    channel.send(b"many", [b"y"] * 8192)
    message = server.take()
    assert message is not None
    assert message.frames == [b"y"] * 8192
    channel.close()


# ---------------------------------------------------------------- connections that end


class Interrupting(bytes):
    """Ctrl-C in the middle of a send."""

    looks = 0

    def __len__(self) -> int:
        self.looks += 1
        if self.looks > 1:
            raise KeyboardInterrupt
        return 3


def test_a_send_that_was_interrupted_breaks_the_channel(server: Server) -> None:
    channel = server.dial()
    with pytest.raises(KeyboardInterrupt):
        channel.send(b"torn", [b"first", Interrupting(b"two")])
    assert channel.broken
    assert channel.send(b"glued on?") is False
    channel.redial()
    assert channel.send(b"whole", [b"1"])
    message = server.take()
    assert message is not None
    assert bytes(message.header) == b"whole"
    channel.close()


def test_an_interrupted_answer_ends_the_connection(server: Server) -> None:
    channel, hello = server.introduce()
    with pytest.raises(KeyboardInterrupt):
        server.exchange.send(hello.route, b"torn", [Interrupting(b"one")])
    assert server.exchange.send(hello.route, b"glued on?") is Delivery.GONE
    assert channel.wait(PATIENCE_S) is False
    assert channel.broken
    channel.close()


def test_the_end_of_the_exchange_is_known_at_once(server: Server) -> None:
    channel, hello = server.introduce()
    server.exchange.send(hello.route, b"goodbye")
    server.exchange.close()
    assert take_below(channel) == (b"goodbye", [])
    assert channel.wait(PATIENCE_S) is False
    assert channel.broken
    assert channel.send(b"x") is False
    channel.redial()
    assert not channel.broken
    assert channel.send(b"as soon as you are back")
    server.open()
    message = None
    deadline = time.monotonic() + PATIENCE_S
    while message is None and time.monotonic() < deadline:
        channel.wait(FIRST_PAUSE_S)
        message = server.take(0.01)
    assert message is not None
    assert bytes(message.header) == b"as soon as you are back"
    channel.close()


def test_without_a_descriptor_left_it_dials_later(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", full)
        channel = LaneChannel(server.info().credentials(), server.exchange.lane_path)
        assert channel.send(b"later")
        assert "dialling" in repr(channel)
    assert channel.wait(10 * FIRST_PAUSE_S) is False
    message = server.take()
    assert message is not None
    assert bytes(message.header) == b"later"
    channel.close()


def test_messages_wait_for_a_controller_that_is_not_there_yet(server: Server) -> None:
    server.exchange.close()
    channel = LaneChannel(server.info().credentials(), server.exchange.lane_path)
    for number in range(3):
        assert channel.send(b"%d" % number, [bytes(100_000)])
    assert channel.wait(0.05) is False
    server.open()
    thread = threading.Thread(target=channel.wait, args=(PATIENCE_S,))
    thread.start()
    for number in range(3):
        message = server.take()
        assert message is not None
        assert bytes(message.header) == b"%d" % number
        route = message.route
    server.exchange.send(route, b"enough")
    thread.join(PATIENCE_S)
    assert take_below(channel) == (b"enough", [])
    channel.close()


def test_closing_does_not_wait_for_who_does_not_read(server: Server) -> None:
    channel, _ = server.introduce()
    for _ in range(8):
        channel.send(b"x", [bytes(FRAME_LIMIT)])
    begin = time.monotonic()
    channel.close(linger_s=0.1)
    assert 0.1 <= time.monotonic() - begin < PATIENCE_S


def test_a_live_path_cannot_be_bound_where_nothing_can_be(server: Server) -> None:
    with pytest.raises(LaunchError, match="the socket /nowhere/lane cannot be bound: No such file"):
        open_exchange(server.keys, lane_path="/nowhere/lane")


# ---------------------------------------------------------------- which way


def test_the_lane_is_taken_where_it_is_proven_and_wanted(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def address(info: ConnectionInfo) -> str:
        channel = dial(info)
        channel.close()
        return channel.address

    info, exchange = server.info(), server.exchange
    assert address(info) == f"unix://{exchange.lane_path}"
    assert address(msgspec.structs.replace(info, lane=info.lane + "?")) == exchange.ipc_address
    assert address(msgspec.structs.replace(info, lane="")) == exchange.ipc_address
    monkeypatch.setenv("ENGINERY_LANE", "0")
    assert address(info) == exchange.ipc_address
    monkeypatch.delenv("ENGINERY_LANE")
    server.directory.proof_file.write_text("another host's")
    assert address(info) == exchange.tcp_addresses[0]


def test_its_path_fits_wherever_the_other_one_does(tmp_path: Path) -> None:
    near = ClusterDirectory("one", runtime=Path("/tmp/never-made"))
    assert near.lane_path() == near.path / "lane.ipc"
    far = ClusterDirectory("one", runtime=tmp_path / ("x" * 120)).create()
    assert far.lane_path().parent == far.ipc_path().parent != far.path
    assert len(os.fsencode(far.lane_path())) <= 107
    short = far.lane_path().parent
    far.remove()
    assert not short.exists()


def test_what_a_killed_controller_leaves_is_taken_over_and_withdrawn(server: Server) -> None:
    path = server.directory.lane_path()
    server.exchange.close()
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(os.fspath(path))
    server.open()
    server.assert_serves()
    server.directory.withdraw()
    assert not path.exists()


def test_what_stands_in_log_lines(server: Server) -> None:
    channel, _ = server.introduce()
    path = server.exchange.lane_path
    assert repr(channel) == f"<LaneChannel client to unix://{path}, open>"
    assert repr(server.exchange).startswith(f"<LaneExchange {path} beside <ZmqExchange tcp://")
    channel.close()
    assert repr(channel) == f"<LaneChannel client to unix://{path}, closed>"
    server.exchange.close()
    assert repr(server.exchange) == "<LaneExchange closed>"


# ---------------------------------------------------------------- other processes

_PEER = """
import sys
from enginery.transport.connection_file import load
from enginery.transport.dialling import dial
channel = dial(load(sys.argv[1]))
channel.send(b"hello")
channel.wait(60)
"""

_FORKING = """
import os, signal, sys
from enginery.errors import ForkedClientError
from enginery.transport.connection_file import load
from enginery.transport.dialling import ChannelFactory
info = load(sys.argv[1])
factory = ChannelFactory(info)
channel = factory.dial()
channel.send(b"before", [bytes(1_000_000)])
if channel.wait(30):
    channel.receive()
child = os.fork()
if not child:
    refused = 0
    for use in (lambda: channel.send(b"x"), channel.receive, channel.pending, lambda: channel.wait(0),
                channel.redial, factory.dial):
        try:
            use()
        except ForkedClientError as error:
            refused += str(os.getpid()) in str(error) and str(os.getppid()) in str(error)
    channel.close()
    factory.close()
    del channel, factory
    import gc
    gc.collect()
    own = ChannelFactory(info)
    mine = own.dial()
    mine.send(b"child %d" % refused)
    mine.wait(30)
    mine.close()
    own.close()
    sys.exit(7)   # the whole way out, finalizers included
_, status = os.waitpid(child, 0)
channel.send(b"parent %d" % os.waitstatus_to_exitcode(status))
channel.wait(30)
sleeper = os.fork()
if not sleeper:
    signal.pause()
channel.send(b"sleeper %d" % sleeper)
channel.wait(30)
os._exit(0)   # the connection ends with its owner, although a child of it lives
"""


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": ""}


def test_the_route_of_a_killed_process_is_gone(server: Server) -> None:
    command = [sys.executable, "-c", _PEER, str(server.files[Role.ENGINE])]
    with subprocess.Popen(command, env=_environment()) as process:
        message = server.take()
        assert message is not None
        assert server.exchange.send(message.route, b"") is Delivery.SENT
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE_S)
    server.exchange.wait(0)  # the kernel has told already
    assert server.exchange.send(message.route, b"") is Delivery.GONE


def test_a_forked_child_cannot_use_or_disturb_its_parent_s_channel(server: Server) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _FORKING]
    command.append(str(server.files[Role.ENGINE]))
    headers, routes = [], []
    with subprocess.Popen(command, env=_environment()) as process:
        for _ in range(4):
            message = server.take(20)
            assert message is not None
            headers.append(bytes(message.header))
            routes.append(message.route)
            server.exchange.send(message.route, b"go on")
        process.wait(20)
    assert process.returncode == 0
    words, sleeper = headers[3].split()
    try:
        assert [*headers[:3], words] == [b"before", b"child 6", b"parent 7", b"sleeper"]
        assert routes[0] == routes[2] == routes[3] != routes[1]
        server.serve_until(lambda: server.exchange.send(routes[0], b"") is Delivery.GONE)
    finally:
        os.kill(int(sleeper), signal.SIGKILL)


# ---------------------------------------------------------------- what is left


def test_nothing_is_left_after_close(runtime_directory: Path) -> None:
    def live() -> None:
        server = Server(runtime_directory)
        factory = ChannelFactory(server.info(Role.ENGINE))
        channels: list[LaneChannel | ZmqChannel] = [factory.dial(), factory.dial()]
        channels.append(dial(server.info(), same_host=False))
        for channel in channels:
            channel.send(b"x", [bytes(1000)])
            assert server.take() is not None
            channel.redial()
            channel.send(b"unread", [bytes(FRAME_LIMIT)] * 3)  # the lane's sender has begun
        stranger = server.connect()
        server.exchange.wait(0.01)
        for channel in channels:
            channel.close()
        factory.close()
        assert Path(server.exchange.lane_path).is_socket()
        server.exchange.close()
        assert not Path(server.exchange.lane_path).exists()
        stranger.close()
        server.close()

    live()
    before, threads = psutil.Process().num_fds(), threading.active_count()
    for _ in range(3):
        live()
    assert psutil.Process().num_fds() == before
    assert threading.active_count() == threads
    assert list(runtime_directory.iterdir()) == []
