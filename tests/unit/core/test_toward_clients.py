"""Clients that do not take what they are sent: nothing is lost, and what is held for them is bounded."""

from __future__ import annotations

from typing import Any

import pytest

from enginery.core import late_texts, recording
from enginery.core.deliveries import HeldLimits
from enginery.core.inquiries import InquiryFailed
from enginery.core.state import Identity
from enginery.ids import BlobId, TaskId
from enginery.protocol import history as h
from enginery.protocol import messages as m
from enginery.protocol.link import Link
from tests.unit.core.builders import options, result, task_id
from tests.unit.core.hub_bench import HubBench

OPTIONS = options()
NOTHING = HeldLimits(of_one=0, of_all=0, least=0, shared=0)
FULL = 10 << 20  # more than a link has room for


def blob(number: int) -> BlobId:
    return BlobId(number.to_bytes(16, "big"))


class Site(HubBench):
    """A client that submits, one that watches, and an engine."""

    def __init__(self) -> None:
        super().__init__()
        self.owner, self.other = self.client(1), self.client(2)
        self.worker, self.controls = self.engine(), self.control()
        self.put(self.owner)
        self.results = 0
        self.taken = {self.owner: 0, self.other: 0}

    def limit(self, of_one: int, *, shared: int = 1 << 30) -> None:
        self.hub.state.held.limits = HeldLimits(of_one=of_one, least=of_one, shared=shared)

    def submit(self, *numbers: int) -> None:
        self.say(self.owner, m.Submit(OPTIONS, [m.Call(number, b"p") for number in numbers]))
        self.hub.settle(now=self.now)

    def end(self, number: int, *, large: bytes = b"", **fields: Any) -> None:
        answer = result(number)
        answer.payload = b"value %d" % number
        if large:
            self.put(self.worker, blob(number), large, keep=False)
            answer.blobs = (blob(number),)
        for name, value in fields.items():
            setattr(answer, name, value)
        self.say(self.worker, m.Results(self.results, [answer]))
        self.results += 1
        self.hub.settle(now=self.now)

    def write(self, number: int, text: str, at: int) -> None:
        self.say(self.controls, m.EngineOutput(task_id(number), "stdout", text, 1, at))

    def stall(self, peer: Identity) -> Link:
        """The peer takes nothing of what it is sent."""
        self.hub.settle(now=self.now)
        link = self.links[peer]
        link.restart(0)
        link._header_sent = FULL
        assert not link.has_room
        return link

    def go_on(self, peer: Identity) -> list[m.Record]:
        """It takes what waits, and goes on to take everything that comes; returns that."""
        heard: list[m.Record] = []
        link = self.links[peer]
        waiting = [entry[0] for entry in (*link._small, *link._bulk)]
        link.restart(0)
        quiet = 0
        while quiet < 2:
            quiet = 0 if waiting else quiet + 1
            heard += waiting
            finished = [record for record in waiting if isinstance(record, m.Finished)]
            if finished:
                self.taken[peer] = finished[-1].first + len(finished[-1].results)
                self.say(peer, m.Received(self.taken[peer]))
            self.hub.state.touch(peer)
            self.commit()
            waiting = self.heard(peer)
        return heard


def results_of(records: list[m.Record]) -> dict[int, m.TaskResult]:
    return {
        one.task & 0xFFFFFFFF: one
        for record in records
        if isinstance(record, m.Finished)
        for one in record.results
    }


def data_of(records: list[m.Record]) -> list[BlobId]:
    return [record.blob for record in records if isinstance(record, m.PutBlob)]


# ---------------------------------------------------------------- results


def test_results_that_are_not_taken_are_in_the_history_and_come_from_there() -> None:
    site = Site()
    site.limit(300)
    site.submit(*range(1, 11))
    site.stall(site.owner)
    for number in range(1, 11):
        site.end(number)
        site.commit()
    outbound = site.hub.state.outbound[1]  # type: ignore[index]
    assert outbound.deliveries.memory_bytes < 600
    assert len(outbound.deliveries) == 10
    owed = [row.task for row in site.store.find(map(task_id, range(1, 11))) if row.owed]
    assert len(owed) >= 7
    heard = results_of(site.go_on(site.owner))
    assert {number: one.payload for number, one in heard.items()} == {
        number: b"value %d" % number for number in range(1, 11)
    }
    assert all(one.status is m.Status.OK and one.engine_key == "e0" for one in heard.values())
    assert len(outbound.deliveries) == 0
    rows = list(site.store.find(map(task_id, range(1, 11))))
    assert all(row.delivered and not row.owed and row.payload_bytes for row in rows)


def test_large_results_that_are_not_taken_are_in_files() -> None:
    site = Site()
    site.limit(150_000)
    site.submit(1, 2, 3, 4)
    site.stall(site.owner)
    for number in range(1, 5):
        site.end(number, large=bytes([number]) * 100_000)
    site.commit()
    site.hub.state.ended_blobs.clear()
    assert site.hub.state.blobs.total_bytes < 250_000, "two of them, and the function"
    heard = site.go_on(site.owner)
    assert [results_of(heard)[number].blobs for number in range(1, 5)] == [
        (blob(number),) for number in range(1, 5)
    ]
    assert data_of(heard) == [blob(number) for number in range(1, 5)]
    assert site.hub.state.blobs.total_bytes < 1000


def test_results_of_a_client_that_has_left_are_in_the_history_whatever_their_size() -> None:
    site = Site()
    site.submit(1, 2)
    site.end(1, large=b"1" * 100_000)
    site.say(site.owner, m.Goodbye())
    site.end(2, large=b"2" * 100_000)
    site.commit()
    site.hub.state.ended_blobs.clear()
    assert not [held for held in site.hub.state.blobs._blobs.values() if held.holders]
    site.heard(site.other)
    for number in (1, 2):
        site.say(site.other, m.AskResults(number, [task_id(number)]))
        site.commit()
        piece, answer = site.heard(site.other)
        assert isinstance(piece, m.PutBlob)
        assert isinstance(answer, m.ResultsAnswer)
        assert (piece.blob, answer.results[0].blobs) == (blob(number), (blob(number),))
        assert answer.results[0].status is m.Status.OK
    assert blob(1) not in site.hub.state.blobs._blobs, "it went from the file to the link"


def test_a_client_that_leaves_releases_what_is_kept_for_it() -> None:
    site = Site()
    site.hub.state.held.limits = NOTHING
    site.submit(1, 2)
    site.stall(site.owner)
    for number in (1, 2):
        site.end(number)
    site.commit()
    assert [row.owed for row in site.store.find([task_id(1), task_id(2)])] == [True, True]
    site.say(site.owner, m.Goodbye())
    site.commit()
    rows = list(site.store.find([task_id(1), task_id(2)]))
    assert [(row.owed, row.payload, row.delivered) for row in rows] == [
        (False, b"value 1", False),
        (False, b"value 2", False),
    ]


def test_a_result_is_kept_for_all_who_have_not_taken_it() -> None:
    site = Site()
    site.hub.state.held.limits = NOTHING
    site.submit(1)
    site.say(site.other, m.AskResults(7, [task_id(1)]))
    for peer in (site.owner, site.other):
        site.stall(peer)
    site.end(1)
    site.commit()
    assert results_of(site.go_on(site.owner))[1].payload == b"value 1"
    (row,) = site.store.find([task_id(1)])
    assert (row.owed, row.delivered) == (True, True)
    assert results_of(site.go_on(site.other))[1].payload == b"value 1"
    (row,) = site.store.find([task_id(1)])
    assert not row.owed


def test_what_was_fetched_is_sent_again_after_a_hello() -> None:
    site = Site()
    site.hub.state.held.limits = NOTHING
    site.submit(1)
    site.stall(site.owner)
    site.end(1)
    site.commit()
    site.lose(site.owner)
    site.commit()
    assert not site.hub.has_inquiries, "nothing is fetched for who is not there"
    site.client(1)
    site.heard(site.owner)
    site.commit()
    assert list(results_of(site.heard(site.owner))) == [1]
    site.client(1)
    assert results_of(site.heard(site.owner))[1].payload == b"value 1"
    site.say(site.owner, m.Received(1))
    site.commit()
    (row,) = site.store.find([task_id(1)])
    assert not row.owed


def test_a_result_that_was_purged_meanwhile_says_so() -> None:
    site = Site()
    site.hub.state.held.limits = NOTHING
    site.submit(1)
    site.stall(site.owner)
    site.end(1)
    site.say(site.other, m.PurgeHistory(7, [], [], everything=True))
    site.commit()
    site.commit()
    lost = results_of(site.go_on(site.owner))[1]
    assert lost.status is m.Status.DROPPED
    assert lost.detail == "it has ended, and was purged before its client took its result"


def test_a_history_that_cannot_be_read_is_the_end_of_what_is_parked_there() -> None:
    site = Site()
    site.hub.state.held.limits = NOTHING
    site.submit(1)
    site.stall(site.owner)
    site.end(1)
    site.commit()
    site.links[site.owner].restart(0)
    site.hub.state.touch(site.owner)
    site.hub.settle(now=site.now)
    (inquiry,) = site.hub.take_inquiries()
    site.hub.on_found(InquiryFailed(inquiry, "the disk is gone"), now=site.now)  # type: ignore[arg-type]
    lost = results_of(site.heard(site.owner))[1]
    assert (lost.status, lost.detail) == (m.Status.DROPPED, "the disk is gone")


def test_others_do_not_notice() -> None:
    site = Site()
    site.limit(300)
    site.submit(*range(1, 21))
    site.say(site.other, m.Submit(OPTIONS, [m.Call(1, b"p")]))
    site.stall(site.owner)
    site.heard(site.other)
    for number in range(1, 21):
        site.end(number)
    answer = m.EngineResult(TaskId(2 << 32 | 1), 1, m.Status.OK, b"mine")
    site.say(site.worker, m.Results(site.results, [answer]))
    assert [record for record in site.heard(site.other) if isinstance(record, m.Finished)] != []


# ---------------------------------------------------------------- what tasks say


def texts_of(records: list[m.Record]) -> list[str]:
    return [record.text for record in records if isinstance(record, m.Output)]


def test_what_a_task_says_to_who_does_not_listen_is_said_later() -> None:
    site = Site()
    site.submit(1)
    site.write(1, "a", 1)
    assert texts_of(site.heard(site.owner)) == ["a"]
    link = site.stall(site.owner)
    for number, text in enumerate("bcd", 2):
        site.write(1, text, number)
    site.hub.settle(now=site.now)
    assert link.waiting_count == 0
    assert texts_of(site.go_on(site.owner)) == ["b", "c", "d"]
    site.write(1, "e", 5)
    assert texts_of(site.heard(site.owner)) == ["e"]


def test_the_last_words_of_a_task_come_with_its_result_from_the_history() -> None:
    site = Site()
    site.submit(1)
    site.write(1, "heard ", 1)
    site.heard(site.owner)
    site.stall(site.owner)
    site.write(1, "missed ", 2)
    site.end(1, outputs=2, stdout="at the end")
    heard = site.go_on(site.owner)
    assert [type(record) for record in heard] == [m.Output, m.Finished]
    assert texts_of(heard) == ["heard missed at the end"]
    one = results_of(heard)[1]
    assert (one.payload, one.attempt, one.outputs, one.stdout) == (b"value 1", m.RECORDED, 1, "")
    (row,) = site.store.find([task_id(1)])
    assert row.delivered
    assert not row.owed, "its value was in memory"


def test_a_result_from_the_history_waits_for_text_that_comes_late() -> None:
    site = Site()
    site.hub.state.held.limits = NOTHING
    site.submit(1)
    site.stall(site.owner)
    site.write(1, "a", 1)
    site.end(1, outputs=3)
    assert site.go_on(site.owner) == [], "its text is on another connection"
    site.write(1, "b", 2)
    assert site.go_on(site.owner) == []
    site.write(1, "c", 3)
    heard = site.go_on(site.owner)
    assert [type(record) for record in heard] == [m.Output, m.Finished]
    assert texts_of(heard) == ["abc"]


def test_text_that_is_lost_is_not_waited_for_long() -> None:
    site = Site()
    site.hub.state.held.limits = NOTHING
    site.submit(1)
    site.stall(site.owner)
    site.write(1, "a", 1)
    site.end(1, outputs=3)
    assert site.go_on(site.owner) == []
    site.wait(late_texts.LATE_S + 1)
    assert texts_of(site.go_on(site.owner)) == ["a"]


def test_text_that_comes_after_the_result_is_a_note_for_who_does_not_listen() -> None:
    site = Site()
    site.submit(1)
    site.end(1, outputs=1)
    site.heard(site.owner)
    link = site.stall(site.owner)
    site.write(1, "x" * 10_000, 1)
    site.say(site.controls, m.EngineData(task_id(1), "name", b"value"))
    (entry,) = link._small
    assert isinstance(entry[0], m.Output)
    assert (entry[0].number, entry[0].attempt) == (1, 1), "its place in what the task says is filled"
    assert entry[0].text == (
        "[this client did not take the last of this task's output; "
        "rc.get_result('00000001-1') has all of it]\n"
    )


def test_what_is_said_to_who_is_away_is_said_again_when_he_is_back() -> None:
    site = Site()
    site.submit(1, 2)
    site.write(1, "b", 1)
    site.end(1, outputs=1)
    site.write(2, "a", 1)
    site.heard(site.owner)
    site.lose(site.owner)
    site.write(2, "c", 2)
    site.client(1)
    heard = site.go_on(site.owner)
    assert texts_of(heard) == ["a", "c", "b"], "some of it once more: it has its numbers"
    assert results_of(heard)[1].attempt == m.RECORDED


def test_who_watches_much_is_told_as_far_as_he_takes_it() -> None:
    site = Site()
    site.engine("e1")
    other_controls = site.control("e1")
    site.submit(1, 2)
    site.write(1, "x" * 10_000, 1)
    site.say(other_controls, m.EngineOutput(task_id(2), "stdout", "y" * 10_000, 1, 1))
    link = site.stall(site.other)
    site.say(site.other, m.AskResults(7, [task_id(1), task_id(2)]))
    site.hub.settle(now=site.now)
    assert link.waiting_count == 1, "the answer, that they have not ended"
    assert len(texts_of(site.go_on(site.other))) == 2


# ---------------------------------------------------------------- answers


def test_of_a_long_answer_the_next_page_comes_when_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    from enginery.controller import answering

    monkeypatch.setattr(answering, "PAGE_ITEMS", 1)
    site = Site()
    site.submit(1, 2, 3)
    for number in (1, 2, 3):
        site.end(number)
    site.heard(site.other)
    site.say(site.other, m.AskHistory(7, []), m.AskHistory(8, []))
    site.hub.settle(now=site.now)
    link = site.stall(site.other)
    site.commit()
    assert link.waiting_count == 1, "the first page"
    pages = [record for record in site.go_on(site.other) if isinstance(record, m.HistoryAnswer)]
    assert [(page.request, page.is_last) for page in pages] == [
        (request, is_last) for request in (7, 8) for is_last in (False, False, True)
    ]


# ---------------------------------------------------------------- a history that is slow


def test_no_results_go_out_while_the_history_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """So no further calls come in, and what waits for the history is bounded by what clients may send."""
    monkeypatch.setattr(recording, "FACT_BYTES", 1000)
    site = Site()
    site.submit(*range(1, 21))
    site.commit()
    site.heard(site.owner)
    for number in range(1, 21):
        site.end(number)
        site.hub.settle(now=site.now)
    assert site.hub.state.recording.is_behind
    sent = results_of(site.heard(site.owner))
    assert len(sent) < 12
    site.write(20, "lost to the history", 1)
    assert texts_of(site.heard(site.owner)) == ["lost to the history"]
    facts = site.commit()
    assert [fact.text for fact in facts if isinstance(fact, h.TaskText)] == [
        "[1 piece of this task's output could not be written to the history fast enough]\n"
    ]
    assert not site.hub.state.recording.is_behind
    assert {*sent, *results_of(site.heard(site.owner))} == set(range(1, 21))
