"""Records to header bytes and back: the only user of the encoder.

A decoder knows one direction's closed union and refuses everything else, so a peer can only say what its
role allows. `MalformedMessage` is the one error that leaves this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

from enginery.protocol import messages as m
from enginery.protocol.messages import Envelope

Body = TypeVar("Body")
Buffer = bytes | bytearray | memoryview

_encoder = msgspec.msgpack.Encoder()


class MalformedMessage(Exception):
    """A message that this direction does not allow. The text says what was wrong with it."""


def encode(epoch: int, number: int, bulk_received: int, records: Sequence[m.Record]) -> bytes:
    """The header of a message."""
    return _encoder.encode((m.PROTOCOL_VERSION, epoch, number, bulk_received, records))


class Decoder(Generic[Body]):
    """Decodes the headers of one direction, and checks that frames and records belong together."""

    def __init__(self, envelope: type[Envelope[Body]]) -> None:
        self._decode = msgspec.msgpack.Decoder(envelope).decode

    def decode(self, header: Buffer, frames: Sequence[Buffer] = ()) -> Envelope[Body]:
        try:
            envelope = self._decode(header)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise MalformedMessage(f"not a header of this direction: {error}") from None
        if envelope.version != m.PROTOCOL_VERSION:
            raise MalformedMessage(
                f"the peer speaks protocol {envelope.version}, this side {m.PROTOCOL_VERSION}"
            )
        if frames:
            _check_frames(envelope, frames)
            return envelope
        for record in envelope.records:
            if type(record) is m.PutBlob:
                raise MalformedMessage("a piece of a blob came without its frame")
        return envelope


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
