"""Records to bytes and back; whatever else comes is refused with one error."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enginery.ids import BlobId
from enginery.protocol import messages as m
from enginery.protocol.codec import Decoder, MalformedMessage, encode
from tests.unit.protocol.records import DECODERS, UNIONS, members, of_struct

MEMBERS = [(union, member) for union in UNIONS for member in members(union)]


def frames_of(records: list[Any]) -> list[bytes]:
    return [b""] * sum(type(record) is m.PutBlob for record in records)


@pytest.mark.parametrize(("union", "member"), MEMBERS, ids=lambda value: getattr(value, "__name__", value))
@settings(max_examples=12)
@given(data=st.data())
def test_every_record_round_trips(union: str, member: type[msgspec.Struct], data: st.DataObject) -> None:
    record = data.draw(of_struct(member))
    if isinstance(record, m.PutBlob):
        record.size_bytes, record.offset = 3, 1
    envelope = DECODERS[union].decode(encode(7, 8, 9, [record, record]), frames_of([record, record]))
    assert (envelope.version, envelope.epoch, envelope.number) == (m.PROTOCOL_VERSION, 7, 8)
    assert envelope.bulk_received == 9
    assert envelope.records == [record, record]
    assert type(envelope.records[0]) is member


@pytest.mark.parametrize("union", UNIONS)
def test_another_roles_record_is_refused(union: str) -> None:
    foreign = {member for _, member in MEMBERS} - set(members(union))
    assert foreign
    for member in foreign:
        record = _plain(member)
        with pytest.raises(MalformedMessage, match="not a header of this direction"):
            DECODERS[union].decode(encode(1, 0, 0, [record]))


def _plain(member: type[msgspec.Struct]) -> Any:
    """The smallest bytes of a record: its tag alone decides who may say it."""
    return msgspec.Raw(msgspec.msgpack.encode([member.__struct_config__.tag]))


def test_tags_are_used_once() -> None:
    tags = {member.__struct_config__.tag for _, member in MEMBERS}
    assert len(tags) == len({member for _, member in MEMBERS})


def test_another_version_is_named() -> None:
    header = msgspec.msgpack.encode((99, 1, 0, 0, []))
    with pytest.raises(MalformedMessage, match="this side speaks protocol 1 of enginery and the other 99"):
        DECODERS["to_client"].decode(header)


BLOB = BlobId(b"b" * 16)


@pytest.mark.parametrize(
    ("records", "frames"),
    [
        ([m.PutBlob(BLOB, 4, 0, False)], []),
        ([], [b"data"]),
        ([m.PutBlob(BLOB, 4, 0, False)], [b"data", b"more"]),
        ([m.PutBlob(BLOB, 4, 2, False)], [b"data"]),
        ([m.PutBlob(BLOB, 4, -1, False)], [b"data"]),
        ([m.PutBlob(BLOB, 1 << 30, 0, False)], [bytes(m.FRAME_LIMIT + 1)]),
    ],
)
def test_frames_that_do_not_belong_to_records_are_refused(
    records: list[m.Record], frames: list[bytes]
) -> None:
    with pytest.raises(MalformedMessage):
        DECODERS["from_client"].decode(encode(1, 0, 0, records), frames)


def test_frames_that_do_belong_pass() -> None:
    records = [m.PutBlob(BLOB, 4, 0, False), m.Ping(), m.PutBlob(BLOB, 4, 4, False)]
    DECODERS["from_client"].decode(encode(1, 0, 0, records), [b"data", b""])


@pytest.mark.parametrize("union", UNIONS)
@given(header=st.binary(max_size=80))
def test_random_bytes_are_malformed_or_a_message(union: str, header: bytes) -> None:
    refused_or_decoded(DECODERS[union], header)


@pytest.mark.parametrize("union", UNIONS)
@given(data=st.data())
@settings(max_examples=40)
def test_truncated_and_damaged_headers_are_malformed_or_a_message(union: str, data: st.DataObject) -> None:
    member = data.draw(st.sampled_from(members(union)))
    header = encode(1, 2, 3, [data.draw(of_struct(member))])
    cut = data.draw(st.integers(0, len(header) - 1))
    with pytest.raises(MalformedMessage):
        DECODERS[union].decode(header[:cut])
    at = data.draw(st.integers(0, len(header) - 1))
    refused_or_decoded(DECODERS[union], header[:at] + data.draw(st.binary(max_size=3)) + header[at + 1 :])


def refused_or_decoded(decoder: Decoder[Any], header: bytes) -> None:
    try:
        envelope = decoder.decode(header)
    except MalformedMessage:
        return
    assert envelope.version == m.PROTOCOL_VERSION
