"""What the controller makes of an engine's words: what it may not do, and what must fit on its link."""

from __future__ import annotations

import pytest

from enginery.core.blobs import BlobTable
from enginery.ids import BlobId, EngineId, TaskId, content_id
from enginery.protocol import codec
from enginery.protocol import messages as m
from enginery.protocol.codec import Unsendable
from enginery.protocol.link import Link, cut_blob
from tests.unit.core.builders import F, options, task_id
from tests.unit.core.hub_bench import HubBench

DATA = b"def planted(): ..."
PLANTED = content_id([DATA])
X, Y = BlobId(b"x" * 16), BlobId(b"y" * 16)


def submit(*numbers: int, blobs: tuple[BlobId, ...] = (), engines: tuple[int, ...] = ()) -> m.Submit:
    targets = tuple(map(EngineId, engines))
    return m.Submit(options(), [m.Call(number, b"p", blobs, targets) for number in numbers])


# ---------------------------------------------------------------- what an engine may not do


@pytest.mark.parametrize("peer", ["engine", "client"])
def test_only_clients_leave_functions_for_others(peer: str) -> None:
    bench = HubBench()
    bench.client()
    speaker = getattr(bench, peer)()
    bench.put(speaker, PLANTED, DATA, keep=True)
    kept = ["BlobKept"] if peer == "client" else []
    assert [name for fact in bench.commit() if (name := type(fact).__name__) == "BlobKept"] == kept
    bench.say(speaker, m.Goodbye())
    assert bench.hub.state.blobs.missing([PLANTED]) == ([] if kept else [PLANTED])


def test_an_engine_writes_into_its_own_tasks_only() -> None:
    bench = HubBench()
    client = bench.client()
    bench.put(client)
    first, second = bench.engine("e0"), bench.engine("e1")
    controls = bench.control("e0"), bench.control("e1")
    bench.say(client, submit(1, engines=(0,)), submit(2, engines=(1,)))
    for peer in (client, first, second, *controls):
        bench.heard(peer)
    for number in (1, 2, 3):
        bench.say(controls[1], m.EngineOutput(task_id(number), "stdout", f"of {number}"))
    assert bench.heard(client) == [m.Output(task_id(2), EngineId(1), "stdout", "of 2")]


def test_engines_are_stopped_even_if_their_host_says_hello_after_the_order() -> None:
    bench = HubBench()
    client = bench.client()
    bench.engine("e0", host="h0")
    bench.heard(client)
    bench.say(client, m.StopEngines(1, []))
    host, control = bench.host("h0"), bench.control("e0")
    stopping = [*bench.heard(host), *bench.heard(control)]
    assert [record for record in stopping if isinstance(record, (m.StopProcesses, m.StopEngine))]


# ---------------------------------------------------------------- buffers above the bound of what is kept


@pytest.mark.parametrize("size_bytes", [40, 150, 4000])
def test_two_buffers_above_the_bound_of_what_is_kept_are_a_call_all_the_same(size_bytes: int) -> None:
    bench = HubBench()
    bench.hub.state.blobs = BlobTable(kept_limit_bytes=100)
    client, worker = bench.client(), bench.engine()
    bench.heard(worker)
    bench.put(client)
    bench.put(client, X, bytes(size_bytes), keep=False)
    bench.put(client, Y, bytes(size_bytes), keep=False)
    bench.say(client, submit(1, blobs=(X, Y)))
    said = bench.heard(worker)
    assert [record.blob for record in said if isinstance(record, m.PutBlob)] == [F, X, Y]
    assert [len(record.calls) for record in said if isinstance(record, m.Run)] == [1]
    assert not [record for record in bench.heard(client) if isinstance(record, m.Resend)]


def test_a_function_above_the_bound_is_there_for_the_call_behind_it() -> None:
    bench = HubBench()
    bench.hub.state.blobs = BlobTable(kept_limit_bytes=5)
    client, worker = bench.client(), bench.engine()
    bench.heard(worker)
    bench.put(client, PLANTED, DATA)  # another, older one, which a call has had
    bench.hub.state.blobs.hold([PLANTED])
    bench.hub.state.blobs.release([PLANTED])
    bench.put(client)
    bench.put(client, X, bytes(1000), keep=False)
    bench.say(client, submit(1, blobs=(X,)))
    assert bench.heard_names(worker) == ["PutBlob", "PutBlob", "Run"]
    assert bench.hub.state.blobs.missing([PLANTED]) == [PLANTED]


# ---------------------------------------------------------------- what fits into a message


def messages_of(link: Link) -> list[tuple[bytes, m.Envelope[m.FromControl | m.PutBlob]]]:
    """All that goes out, and that it can be read: frames and records belong together."""
    found = []
    decoder = codec.from_engine()
    while (message := link.next_message()) is not None:
        header, frames = message
        found.append((header, decoder.decode(header, frames)))
    return found  # type: ignore[return-value]


def result_record(number: int, text: str) -> m.Results:
    return m.Results(number, [m.EngineResult(TaskId(number), 1, m.Status.OK, b"", (), 0.0, 0.0, text)])


@pytest.mark.parametrize("text", ["x" * 60_000, "€" * 20_000, "\0" * 60_000])
def test_estimates_that_are_too_small_make_more_messages(text: str) -> None:
    link = Link()
    for number in range(60):
        link.put(result_record(number, text), 1)
    sent = messages_of(link)
    assert [record.first for _, envelope in sent for record in envelope.records] == list(range(60))  # type: ignore[union-attr]
    assert [envelope.number for _, envelope in sent] == list(range(len(sent)))
    assert 4 <= len(sent) <= 16
    assert max(len(header) for header, _ in sent) <= m.MESSAGE_LIMIT
    assert not link.has_output


@pytest.mark.parametrize("before", [0, 5, 40])
def test_what_is_halved_keeps_frames_beside_their_records(before: int) -> None:
    link = Link()
    for number in range(before):
        link.put(result_record(number, "x" * 60_000), 1)
    for blob, number in ((X, before), (Y, before + 1)):
        link.put_blob(cut_blob(blob, bytes(100_000), keep=False))
        link.put_after_bulk(result_record(number, "x" * 900_000), 1)
    names = []
    for header, envelope in messages_of(link):
        assert len(header) <= m.MESSAGE_LIMIT
        for record in envelope.records:
            names.append(record.blob if isinstance(record, m.PutBlob) else record.first)  # type: ignore[union-attr]
    assert names == [*range(before), X, before, Y, before + 1]
    assert link.is_drained


def test_a_record_that_is_too_large_is_named_and_taken_out() -> None:
    link = Link()
    link.put(m.Stored(1))
    link.put(result_record(2, "x" * (m.MESSAGE_LIMIT + 1)), 1)
    link.put(m.Stored(3))
    sent = link.next_message()
    assert sent is not None
    assert codec.to_engine().decode(*sent).records == [m.Stored(1)]
    with pytest.raises(
        Unsendable, match=r"type Results cannot be sent: it has 1\.1 MiB; the limit is 1\.1"
    ) as raised:
        link.next_message()
    assert raised.value.record == result_record(2, "x" * (m.MESSAGE_LIMIT + 1))
    sent = link.next_message()
    assert sent is not None
    envelope = codec.to_engine().decode(*sent)
    assert (envelope.number, envelope.records) == (1, [m.Stored(3)])


def test_what_cannot_be_encoded_is_taken_out_of_the_middle_of_a_batch() -> None:
    link = Link()
    link.put_blob(cut_blob(X, bytes(100_000), keep=False))
    link.put_after_bulk(m.EngineOutput(TaskId(1), "stdout", "x\udcff"), in_order=True)
    link.put(m.Stored(1), in_order=True)
    names: list[str] = []
    with pytest.raises(Unsendable, match="'utf-8' codec can't encode"):
        while (message := link.next_message()) is not None:
            names += [type(record).__name__ for record in codec.to_engine().decode(*message).records]
    link.put(m.Stored(2), in_order=True)
    while (message := link.next_message()) is not None:
        names += [type(record).__name__ for record in codec.to_engine().decode(*message).records]
    assert names == ["PutBlob", "Stored", "Stored"]
    assert link.is_drained
