"""Records to header bytes and back: the only user of the encoder.

A decoder knows one direction's closed union and refuses everything else, so a peer can only say what its
role allows. Two errors leave this file: `MalformedMessage` of what has come, `Unsendable` of what cannot go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

from enginery.errors import EngineryError, TooLarge
from enginery.protocol import messages as m
from enginery.protocol.messages import Envelope

Body = TypeVar("Body")
Buffer = bytes | bytearray | memoryview


class _Preamble(msgspec.Struct, array_like=True):
    version: int
    epoch: int


_decode_preamble = msgspec.msgpack.Decoder(_Preamble).decode
_encoder = msgspec.msgpack.Encoder()
_CANNOT_ENCODE = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


class MalformedMessage(Exception):
    """A message that this direction does not allow. The text says what was wrong with it."""


class NotAllowed(MalformedMessage):
    """The message is whole and says what this direction does not allow: it is no better a second time."""


class VersionMismatch(MalformedMessage):
    """The peer speaks another version of the protocol. The first fields of a header never change."""

    def __init__(self, theirs: int, epoch: int) -> None:
        super().__init__(theirs, epoch)
        self.theirs = theirs
        self.epoch = epoch

    def __str__(self) -> str:
        return (
            f"this side speaks protocol {m.PROTOCOL_VERSION} of enginery and the other {self.theirs}; "
            "install the same version of enginery on both"
        )


class Unsendable(EngineryError, ValueError):
    """Say of a record that it cannot be sent: it is too large, or holds what cannot be encoded."""

    def __init__(self, record: m.Record, reason: Exception) -> None:
        super().__init__(record, reason)
        self.record = record
        self.reason = reason

    def __str__(self) -> str:
        return f"a record of type {type(self.record).__name__} cannot be sent: {self.reason}"


def encode(
    epoch: int, number: int, bulk_received: int, records: Sequence[m.Record], header_received: int = 0
) -> bytes:
    """The header of a message."""
    return _encoder.encode((m.PROTOCOL_VERSION, epoch, number, bulk_received, records, header_received))


def encode_within_limit(
    epoch: int, number: int, bulk_received: int, records: Sequence[m.Record], header_received: int = 0
) -> bytes | None:
    """The header of a message, or None if fewer records have to go at once.

    Raises Unsendable if there is only one, and it cannot go at all.
    """
    reason: Exception
    try:
        header = encode(epoch, number, bulk_received, records, header_received)
    except _CANNOT_ENCODE as error:
        reason = error
    else:
        if len(header) <= m.MESSAGE_LIMIT:
            return header
        reason = TooLarge("it", size_bytes=len(header), limit_bytes=m.MESSAGE_LIMIT)
    if len(records) > 1:
        return None
    raise Unsendable(records[0], reason) from reason


def check_record(record: m.Record, what: str, *, limit_bytes: int = m.FRAME_LIMIT) -> None:
    """Refuse, before it is queued, what could not be sent or would not be taken.

    Raises TooLarge above the limit and ValueError for all else; `what` names it in the sentence.
    """
    try:
        data = _encoder.encode(record)
        msgspec.msgpack.decode(data, type=type(record))
    except _CANNOT_ENCODE as error:
        raise ValueError(f"{what} cannot be sent: {error}") from None
    if len(data) > limit_bytes:
        raise TooLarge(what, size_bytes=len(data), limit_bytes=limit_bytes)


class Decoder(Generic[Body]):
    """Decodes the headers of one direction, and checks that frames and records belong together."""

    def __init__(self, envelope: type[Envelope[Body]]) -> None:
        self._decode = msgspec.msgpack.Decoder(envelope).decode

    def decode(self, header: Buffer, frames: Sequence[Buffer] = ()) -> Envelope[Body]:
        try:
            envelope = self._decode(header)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            _check_version(header)
            kind = NotAllowed if isinstance(error, msgspec.ValidationError) else MalformedMessage
            raise kind(f"not a header of this direction: {error}") from None
        if envelope.version != m.PROTOCOL_VERSION:
            _check_version(header)
        if frames:
            _check_frames(envelope, frames)
            return envelope
        for record in envelope.records:
            if type(record) is m.PutBlob:
                raise MalformedMessage("a piece of a blob came without its frame")
        return envelope


def _check_version(header: Buffer) -> None:
    """Raise VersionMismatch if the header is one of another version, whatever else is in it."""
    try:
        preamble = _decode_preamble(header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if preamble.version != m.PROTOCOL_VERSION:
        raise VersionMismatch(preamble.version, preamble.epoch)


def _check_frames(envelope: Envelope[Body], frames: Sequence[Buffer]) -> None:
    pieces = [record for record in envelope.records if isinstance(record, m.PutBlob)]
    if len(pieces) != len(frames):
        raise MalformedMessage(f"{len(frames)} frames came for {len(pieces)} pieces of blobs")
    for piece, frame in zip(pieces, frames, strict=True):
        size = len(frame)
        if size > m.FRAME_LIMIT or piece.offset < 0 or piece.offset + size > piece.size_bytes:
            raise MalformedMessage(
                f"a frame of {size} bytes at {piece.offset} does not fit a blob of {piece.size_bytes}"
            )


def from_client() -> Decoder[m.FromClient]:
    return Decoder(Envelope[m.FromClient])


def to_client() -> Decoder[m.ToClient]:
    return Decoder(Envelope[m.ToClient])


def from_engine() -> Decoder[m.FromEngine]:
    return Decoder(Envelope[m.FromEngine])


def to_engine() -> Decoder[m.ToEngine]:
    return Decoder(Envelope[m.ToEngine])


def from_control() -> Decoder[m.FromControl]:
    return Decoder(Envelope[m.FromControl])


def to_control() -> Decoder[m.ToControl]:
    return Decoder(Envelope[m.ToControl])


def from_host() -> Decoder[m.FromHost]:
    return Decoder(Envelope[m.FromHost])


def to_host() -> Decoder[m.ToHost]:
    return Decoder(Envelope[m.ToHost])
