"""Numbers out of range are refused at their sender's door: none of them reaches a machine or the store."""

from __future__ import annotations

import pytest

from enginery.ids import EngineId
from enginery.protocol import codec
from enginery.protocol import messages as m
from enginery.protocol.codec import MalformedMessage

VERSIONS = m.Versions("0", (3, 11))


def hello(client: int = 1, pid: int = 1, received: int = 0) -> m.ClientHello:
    return m.ClientHello(client, b"", VERSIONS, pid, received)  # type: ignore[arg-type]


def engine_hello(pid: int = 1, wanted: int = 0, first_result: int = 0) -> m.EngineHello:
    return m.EngineHello("k", b"", VERSIONS, "h", "", pid, wanted, [], first_result)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("decoder", "record"),
    [
        (codec.from_client(), hello(client=-5)),
        (codec.from_client(), hello(client=2**31)),
        (codec.from_client(), hello(client=2**64 - 1)),
        (codec.from_client(), hello(pid=2**64 - 1)),
        (codec.from_client(), hello(received=-1)),
        (codec.from_client(), m.Submit(m.TaskOptions(m.Kind.CALL), [m.Call(0, b"")])),
        (codec.from_client(), m.Submit(m.TaskOptions(m.Kind.CALL), [m.Call(1, b"", (), (EngineId(-1),))])),
        (codec.from_client(), m.Submit(m.TaskOptions(m.Kind.CALL), [m.Call(2**32, b"")])),
        (codec.from_client(), m.StartEngines(1, 10**7)),
        (codec.from_client(), m.StartEngines(1, -5)),
        (codec.from_client(), m.SignalEngines(1, [], 9999)),
        (codec.from_client(), m.SignalEngines(1, [], -1)),
        (codec.from_engine(), engine_hello(first_result=2**64 - 1)),
        (codec.from_engine(), engine_hello(pid=2**64 - 1)),
        (codec.from_engine(), engine_hello(wanted=2**64 - 1)),
        (codec.from_engine(), engine_hello(wanted=-2)),
        (codec.from_engine(), m.Results(2**64 - 1, [])),
    ],
)
def test_a_number_out_of_range_is_refused(decoder: codec.Decoder[object], record: m.Record) -> None:
    with pytest.raises(MalformedMessage):
        decoder.decode(codec.encode(1, 0, 0, [record]))


def test_the_ends_of_the_ranges_are_taken() -> None:
    taken = codec.from_client().decode(
        codec.encode(1, 0, 0, [hello(client=2**31 - 1), m.StartEngines(1, 10_000)])
    )
    assert [type(record) for record in taken.records] == [m.ClientHello, m.StartEngines]
