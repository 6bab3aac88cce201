"""Two links and a bad network: what is fresh is exactly what was sent, in order, up to the first loss."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from enginery.ids import BlobId
from enginery.protocol import codec
from enginery.protocol.assembly import BlobCache
from enginery.protocol.link import Link, Verdict, cut_blob
from enginery.protocol.messages import FRAME_LIMIT, DropBlobs, PutBlob, Record, Stored

WINDOW = 1 << 20
DECODE = codec.to_engine().decode
fates = st.lists(st.sampled_from(["pass", "pass", "pass", "drop", "twice", "swap"]), max_size=30)
items = st.lists(
    st.one_of(st.integers(0, 9), st.sampled_from([10, 70_000, 1_200_000, 2_500_000])), max_size=12
)


@settings(max_examples=60)
@given(items, fates)
def test_fresh_is_a_prefix_of_what_was_sent(sizes: list[int], plan: list[str]) -> None:
    sender, receiver = Link(window_bytes=WINDOW), Link(window_bytes=WINDOW)
    for number, size in enumerate(sizes):
        if size < 10:
            sender.put(Stored(number))
        else:
            blob = BlobId(number.to_bytes(16, "big"))
            sender.put_blob(cut_blob(blob, bytes([number]) * size, keep=False))
            sender.put_after_bulk(DropBlobs([blob]))
    sent: list[Record] = []
    fresh: list[Record] = []
    cache = BlobCache()
    complete = True
    plan = plan[::-1]
    waiting: list[tuple[bytes, list[codec.Buffer]]] = []
    while True:
        message = sender.next_message()
        if message is None and not waiting:
            if receiver.next_message() is None:
                break
            sender._acknowledged = receiver._received  # as the receiver's message would say
            if not sender.has_output:
                break
            continue
        if message is not None:
            assert len(message[0]) <= FRAME_LIMIT
            assert sum(map(len, message[1])) < 2 * FRAME_LIMIT
            assert sender._sent - sender._acknowledged < WINDOW + 2 * FRAME_LIMIT
            sent += DECODE(*message).records
            fate = plan.pop() if plan else "pass"
            if fate == "swap":
                waiting.append(message)
                continue
            arriving = [] if fate == "drop" else [message] * (2 if fate == "twice" else 1)
        else:
            arriving = []
        arriving, waiting = arriving + waiting, []
        for header, frames in arriving:
            envelope = DECODE(header, frames)
            verdict = receiver.on_message(envelope, frames)
            if verdict is Verdict.GAP:
                complete = False
            if verdict is not Verdict.FRESH:
                continue
            pieces = iter(frames)
            for record in envelope.records:
                fresh.append(record)
                if isinstance(record, PutBlob):
                    cache.on_piece(record, next(pieces))
                elif isinstance(record, DropBlobs):
                    (blob,) = record.blobs
                    data = cache.get(blob)
                    assert data is not None, "a record came before the blob that it names"
                    assert bytes(data) == bytes([blob[-1]]) * len(data)
    assert fresh == sent[: len(fresh)]
    if complete and "drop" not in plan and len(fresh) == len(sent):
        assert sender.is_drained
