"""0MQ for real: strangers, torn messages, dead peers, forks, and what is left afterwards."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest
import zmq
import zmq.utils.garbage

from enginery.errors import LaunchError, TooLarge
from enginery.protocol.messages import MESSAGE_LIMIT
from enginery.transport import sockets
from enginery.transport.addresses import ClusterDirectory
from enginery.transport.channel import Channel, Delivery, Incoming, Rejected, Role
from enginery.transport.connection_file import ConnectionInfo, load, publish
from enginery.transport.dialling import ChannelFactory, dial
from enginery.transport.exchange import ZmqExchange, open_exchange
from enginery.transport.keys import ClusterKeys
from enginery.transport.lane_exchange import LaneExchange

PATIENCE_S = 10.0


@pytest.fixture(scope="module", autouse=True)
def _pyzmq_keeps_no_thread() -> Iterator[None]:
    yield
    zmq.utils.garbage.gc.stop()


class Server:
    """An exchange with published connection files."""

    def __init__(self, runtime: Path) -> None:
        self.directory = ClusterDirectory("sockets", runtime=runtime).create()
        self.keys = ClusterKeys.generate()
        self.exchange: ZmqExchange | LaneExchange = open_exchange(self.keys, self.directory.ipc_path())
        tcp, ipc = self.exchange.tcp_addresses, self.exchange.ipc_address
        self.files = publish(self.directory, self.keys, tcp=tcp, ipc=ipc)
        self.port = int(tcp[0].rpartition(":")[2])

    def info(self, role: Role = Role.CLIENT) -> ConnectionInfo:
        return load(self.files[role])

    def take(self, timeout_s: float = PATIENCE_S) -> Incoming | None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            message = self.exchange.receive()
            if message is not None:
                return message
            self.exchange.wait(0.05)
        return None

    def take_rejection(self) -> Rejected:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self.exchange.wait(0.05)
            assert self.exchange.receive() is None
            rejected = self.exchange.rejections()
            if rejected:
                return rejected[0]
        pytest.fail("nobody was turned away")

    def assert_serves(self) -> None:
        """Whatever happened, a peer is served."""
        for same_host in (True, False):
            channel = dial(self.info(), same_host=same_host)
            channel.send(b"are you there?")
            message = self.take()
            assert message is not None
            assert bytes(message.header) == b"are you there?"
            channel.close()

    def close(self) -> None:
        self.exchange.close()
        self.directory.remove()


@pytest.fixture
def server(runtime_directory: Path) -> Iterator[Server]:
    made = Server(runtime_directory)
    yield made
    made.close()


# ---------------------------------------------------------------- who comes in


def _stranger(server: Server, **changes: object) -> Channel:
    info = msgspec.structs.replace(server.info(), **changes)
    return dial(info, same_host=bool(changes.get("token")))


def test_an_unknown_key_is_turned_away(server: Server) -> None:
    public, secret = (key.decode() for key in zmq.curve_keypair())
    channel = _stranger(server, public_key=public, secret_key=secret)
    assert channel.send(b"let me in")
    assert server.take_rejection() == Rejected("its key is not one of this cluster", "127.0.0.1")
    channel.close()
    server.assert_serves()


def test_a_public_key_without_its_secret_is_turned_away(server: Server) -> None:
    _, secret = (key.decode() for key in zmq.curve_keypair())
    channel = _stranger(server, secret_key=secret)
    assert channel.send(b"let me in")
    assert "handshake" in server.take_rejection().reason
    channel.close()
    server.assert_serves()


def test_another_cluster_s_server_key_is_turned_away(server: Server) -> None:
    channel = _stranger(server, server_key=ClusterKeys.generate().server_public)
    assert channel.send(b"let me in")
    rejected = server.take_rejection()
    assert rejected.reason == "its handshake was wrong (no key, or another cluster's)"
    assert rejected.peer.startswith("127.0.0.1:")
    channel.close()
    server.assert_serves()


@pytest.mark.parametrize("token", ["wrong", "x" * 1000])
def test_a_wrong_token_is_turned_away(server: Server, token: str) -> None:
    channel = _stranger(server, token=token[:255])
    assert channel.send(b"let me in")
    assert server.take_rejection().reason == "its token is not one of this cluster"
    channel.close()
    server.assert_serves()


def test_a_token_of_another_role_is_turned_away(server: Server) -> None:
    channel = _stranger(server, token=server.info(Role.ENGINE).token)
    assert channel.send(b"let me in")
    assert server.take_rejection().reason == "its token is not one of this cluster"
    channel.close()


@pytest.mark.parametrize("same_host", [True, False])
def test_engine_credentials_make_an_engine(server: Server, same_host: bool) -> None:
    """Who claims to be a client with an engine's credentials is seen as what they prove."""
    channel = dial(server.info(Role.ENGINE), same_host=same_host)
    assert channel.send(b"I am a client")
    message = server.take()
    assert message is not None
    assert message.role is Role.ENGINE
    channel.close()


def _plain_dealer(address: str) -> tuple[zmq.Context[zmq.Socket[bytes]], zmq.Socket[bytes]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.linger = 0
    dealer.reconnect_ivl = 60_000
    dealer.connect(address)
    return context, dealer


@pytest.mark.parametrize("lane", ["tcp", "ipc"])
def test_a_peer_without_credentials_is_turned_away(server: Server, lane: str) -> None:
    exchange = server.exchange
    context, dealer = _plain_dealer(exchange.ipc_address if lane == "ipc" else exchange.tcp_addresses[0])
    dealer.send(b"let me in")
    assert server.take(0.3) is None
    if lane == "tcp":
        assert len(exchange.rejections()) == 1
    context.destroy(linger=0)
    server.assert_serves()


def test_a_route_that_the_peer_chose_is_turned_away(server: Server) -> None:
    credentials = server.info(Role.ENGINE).credentials()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.linger = 0
    dealer.routing_id = b"mine!"
    dealer.plain_username, dealer.plain_password = b"engine", credentials.token.encode()
    dealer.connect(server.exchange.ipc_address)
    dealer.send(b"x")
    assert server.take_rejection().reason == "it sent a message without a role"
    context.destroy(linger=0)
    server.assert_serves()


GARBAGE = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    bytes(range(256)) * 16,
    b"\xff" * 10_000,
    b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00CURVE" + bytes(200),
    b"\x00",
]


@pytest.mark.parametrize("data", GARBAGE, ids=range(len(GARBAGE)))
def test_random_bytes_on_the_port_are_one_rejection(server: Server, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as stranger:
        name = f"127.0.0.1:{stranger.getsockname()[1]}"
        with contextlib.suppress(OSError):  # it may be thrown out before it has finished
            stranger.sendall(data)
            stranger.shutdown(socket.SHUT_WR)
        rejected = server.take_rejection()
    assert rejected.peer in (name, "an unknown address")  # it may be gone before it can be asked
    server.assert_serves()
    assert server.exchange.rejections() == []
    assert server.exchange.statistics()["rejected"] == 1


def test_a_half_open_connection_is_ended(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as stranger:
        server.assert_serves()
        begin = time.monotonic()
        assert "handshake" in server.take_rejection().reason
        assert time.monotonic() - begin < sockets.HANDSHAKE_S + 2
        stranger.settimeout(PATIENCE_S)
        while stranger.recv(4096):
            pass
    server.assert_serves()


def test_peers_that_leave_are_not_reported(server: Server) -> None:
    for _ in range(3):
        server.assert_serves()
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:
        server.exchange.wait(0.05)
    assert server.exchange.rejections() == []


# ---------------------------------------------------------------- messages that do not fit


@pytest.mark.parametrize("same_host", [True, False])
def test_what_is_too_large_is_refused_before_it_is_sent(server: Server, same_host: bool) -> None:
    channel = dial(server.info(), same_host=same_host)
    big = bytes(MESSAGE_LIMIT + 1)
    with pytest.raises(TooLarge, match=r"a frame has 1\.1 MiB"):
        channel.send(b"x", [big])
    with pytest.raises(TooLarge, match="the header of a message"):
        channel.send(big)
    assert not channel.broken
    channel.send(b"small")
    message = server.take()
    assert message is not None
    with pytest.raises(TooLarge):
        server.exchange.send(message.route, b"x", [big])
    assert server.exchange.send(message.route, b"small") is Delivery.SENT
    channel.close()


def test_an_oversized_message_ends_only_its_connection(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = dial(server.info(), same_host=False)
    monkeypatch.setattr("enginery.transport.dialling.check_sizes", lambda header, frames: None)
    channel.send(bytes(MESSAGE_LIMIT + 1))
    assert server.take(0.3) is None
    channel.close()
    server.assert_serves()


@pytest.mark.parametrize("same_host", [True, False])
def test_a_send_that_was_interrupted_breaks_the_channel(server: Server, same_host: bool) -> None:
    class Interrupting(bytes):
        def __len__(self) -> int:
            calls.append(1)
            if len(calls) > 1:
                raise KeyboardInterrupt
            return 3

    calls: list[int] = []
    channel = dial(server.info(), same_host=same_host)
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


def test_an_interrupted_answer_does_not_glue_the_next_one(server: Server) -> None:
    class Interrupting(bytes):
        def __len__(self) -> int:
            calls.append(1)
            if len(calls) > 1:
                raise KeyboardInterrupt
            return 3

    calls: list[int] = []
    channel = dial(server.info(), same_host=True)
    channel.send(b"hello")
    message = server.take()
    assert message is not None
    with pytest.raises(KeyboardInterrupt):
        server.exchange.send(message.route, b"torn", [Interrupting(b"one")])
    assert server.exchange.send(message.route, b"whole", [b"1"]) is Delivery.SENT
    received = []
    while len(received) < 2 and channel.wait(PATIENCE_S):
        part = channel.receive()
        assert part is not None
        received.append((bytes(part[0]), [bytes(frame) for frame in part[1]]))
    assert received == [(b"torn", [b""]), (b"whole", [b"1"])]
    channel.close()


def test_received_frames_are_not_copied_and_stay_valid(server: Server) -> None:
    channel = dial(server.info(), same_host=True)
    channel.send(b"x", [b"a" * 1_000_000])
    message = server.take()
    assert message is not None
    view = message.frames[0]
    assert isinstance(view, memoryview)
    assert isinstance(view.obj, zmq.Frame)
    del message
    assert view == b"a" * 1_000_000
    view.release()
    channel.close()


# ---------------------------------------------------------------- which way


def test_the_proof_file_decides_the_way(server: Server) -> None:
    for expected in (server.exchange.ipc_address, server.exchange.tcp_addresses[0]):
        channel = dial(server.info())
        assert channel.address == expected
        channel.close()
        server.directory.proof_file.write_text("another host's")


def test_a_port_that_is_taken_is_named(server: Server) -> None:
    with pytest.raises(
        LaunchError, match=rf"port {server.port} of 127\.0\.0\.1 cannot be bound: Address already"
    ):
        open_exchange(server.keys, port=server.port)


def test_an_unknown_host_is_named() -> None:
    with pytest.raises(LaunchError, match="there is no address for host 'no such host'"):
        open_exchange(ClusterKeys.generate(), host="no such host")


def test_all_interfaces_list_their_addresses() -> None:
    exchange = open_exchange(ClusterKeys.generate(), host="*")
    assert exchange.tcp_addresses[-1].startswith("tcp://127.0.0.1:")
    assert exchange.ipc_address == ""
    assert repr(exchange).startswith("<ZmqExchange tcp://")
    exchange.close()
    assert repr(exchange) == "<ZmqExchange closed>"


def test_the_descriptor_limit_is_raised(server: Server) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard or hard == resource.RLIM_INFINITY


# ---------------------------------------------------------------- other processes

_PEER = """
import sys, time
from enginery.transport.connection_file import load
from enginery.transport.dialling import dial
channel = dial(load(sys.argv[1]), same_host=sys.argv[2] == "ipc")
channel.send(b"hello")
channel.wait(60)
"""


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "error"}


@pytest.mark.parametrize("lane", ["tcp", "ipc"])
def test_the_route_of_a_killed_process_is_gone(server: Server, lane: str) -> None:
    command = [sys.executable, "-c", _PEER, str(server.files[Role.ENGINE]), lane]
    with subprocess.Popen(command, env=_environment()) as process:
        message = server.take()
        assert message is not None
        assert server.exchange.send(message.route, b"") is Delivery.SENT
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE_S)
    killed = time.monotonic()
    while server.exchange.send(message.route, b"") is not Delivery.GONE:
        assert time.monotonic() - killed < PATIENCE_S
        server.exchange.wait(0.01)


_FORKING = """
import os, signal, sys
from enginery.errors import ForkedClientError
from enginery.transport.connection_file import load
from enginery.transport.dialling import ChannelFactory
info = load(sys.argv[1])
factory = ChannelFactory(info, same_host=sys.argv[2] == "ipc")
channel = factory.dial()
channel.send(b"before", [bytes(100_000)])
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
channel.close()
factory.close()
"""


@pytest.mark.parametrize("lane", ["tcp", "ipc"])
def test_a_forked_child_cannot_use_or_disturb_its_parent_s_channel(server: Server, lane: str) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _FORKING]
    command += [str(server.files[Role.ENGINE]), lane]
    with subprocess.Popen(
        command, env=_environment() | {"PYTHONWARNINGS": ""}, stderr=subprocess.PIPE
    ) as process:
        headers, routes = [], []
        for _ in range(3):
            message = server.take(20)
            assert message is not None
            headers.append(bytes(message.header))
            routes.append(message.route)
            server.exchange.send(message.route, b"go on")
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, b"")
    assert headers == [b"before", b"child 6", b"parent 7"]
    assert routes[0] == routes[2] != routes[1]


# ---------------------------------------------------------------- what is left


def _descriptors() -> int:
    return psutil.Process().num_fds()


def test_nothing_is_left_after_close(runtime_directory: Path) -> None:
    def live() -> None:
        server = Server(runtime_directory)
        factory = ChannelFactory(server.info(Role.ENGINE))
        channels = [factory.dial(), factory.dial(), dial(server.info(), same_host=False)]
        for channel in channels:
            channel.send(b"x", [bytes(1000)])
            assert server.take() is not None
            channel.redial()
            channel.send(b"unread")
        for channel in channels:
            channel.close()
        factory.close()
        factory.close()
        server.close()

    live()
    before = _descriptors()
    for _ in range(3):
        live()
    assert _descriptors() == before
    assert list(runtime_directory.iterdir()) == []


def test_closing_does_not_wait_for_a_controller_that_is_away(server: Server) -> None:
    channel = dial(msgspec.structs.replace(server.info(), tcp=("tcp://127.0.0.1:9",)), same_host=False)
    for _ in range(100):
        assert channel.send(b"nobody", [bytes(1000)])
    begin = time.monotonic()
    channel.close()
    assert time.monotonic() - begin < PATIENCE_S


def test_a_controller_that_comes_back_is_found_again(runtime_directory: Path) -> None:
    first = Server(runtime_directory)
    channel = dial(first.info(), same_host=False)
    channel.send(b"one")
    assert first.take() is not None
    first.exchange.close()
    channel.send(b"two")
    again = open_exchange(first.keys, port=first.port)
    first.exchange = again
    message = first.take()
    assert message is not None
    assert bytes(message.header) == b"two"
    channel.close()
    first.close()
