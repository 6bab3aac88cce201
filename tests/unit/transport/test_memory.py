"""The memory channel's faults. Its contract is tested beside 0MQ's, in tests/integration."""

import pytest

from enginery.transport.channel import Delivery, Role
from enginery.transport.memory import Fault, MemoryNetwork


def _arrived(network: MemoryNetwork) -> list[tuple[bytes, list[bytes]]]:
    return [
        (bytes(message.header), [bytes(frame) for frame in message.frames])
        for message in network.exchange.drain()
    ]


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ([], [b"0000", b"1111", b"2222"]),
        ([Fault.DROP], [b"1111", b"2222"]),
        ([Fault.PASS, Fault.DUPLICATE], [b"0000", b"1111", b"1111", b"2222"]),
        ([Fault.REORDER], [b"1111", b"0000", b"2222"]),
        ([Fault.REORDER, Fault.REORDER], [b"2222", b"0000", b"1111"]),
        ([Fault.TEAR], [b"00", b"1111", b"2222"]),
        ([Fault.HOLD], [b"1111", b"2222"]),
    ],
)
def test_faults_upwards(faults: list[Fault], expected: list[bytes]) -> None:
    network = MemoryNetwork(up=faults)
    channel = network.dial(Role.CLIENT)
    for number in range(3):
        assert channel.send(str(number).encode() * 4)
    assert [header for header, _ in _arrived(network)] == expected
    network.close()


def test_a_torn_message_with_frames_lacks_the_last() -> None:
    network = MemoryNetwork(up=[Fault.TEAR])
    network.dial(Role.CLIENT).send(b"header", [b"one", b"two"])
    assert _arrived(network) == [(b"header", [b"one"])]
    network.close()


def test_faults_downwards_and_release() -> None:
    network = MemoryNetwork(down=[Fault.HOLD, Fault.DROP])
    channel = network.dial(Role.ENGINE)
    assert channel.route is not None
    for header in (b"held", b"dropped", b"passed"):
        assert network.exchange.send(channel.route, header) is Delivery.SENT
    assert channel.receive() == (b"passed", [])
    assert channel.receive() is None
    network.release()
    assert channel.receive() == (b"held", [])
    network.close()


def test_a_connection_that_comes_back_goes_on_in_mid_stream_on_another_route() -> None:
    network = MemoryNetwork(up=[Fault.PASS, Fault.HOLD])
    channel = network.dial(Role.CLIENT)
    first = channel.route
    assert first is not None
    channel.send(b"1")
    channel.send(b"lost on the way")
    network.disconnect(channel)
    assert network.exchange.send(first, b"x") is Delivery.GONE
    assert channel.send(b"2")
    network.connect(channel)
    messages = network.exchange.drain()
    assert [bytes(message.header) for message in messages] == [b"1", b"2"]
    assert messages[0].route == first
    assert messages[1].route == channel.route != first
    network.close()


def test_an_interrupted_send_breaks_the_channel() -> None:
    network = MemoryNetwork()
    channel = network.dial(Role.CLIENT)
    channel.tear_next_send = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        channel.send(b"torn")
    assert channel.broken
    assert not channel.send(b"refused")
    channel.redial()
    assert channel.send(b"whole")
    assert _arrived(network) == [(b"whole", [])]
    assert repr(channel) == "<MemoryChannel client, open>"
    network.close()


def test_messages_are_copies() -> None:
    network = MemoryNetwork()
    frame = bytearray(b"before")
    network.dial(Role.CLIENT).send(b"h", [frame])
    frame[:] = b"after!"
    assert _arrived(network) == [(b"h", [b"before"])]
    network.close()
