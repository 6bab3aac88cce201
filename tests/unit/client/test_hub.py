"""What a client asks of the controller's memory, and what it has it forget."""

from __future__ import annotations

from typing import Any

import pytest

from enginery.client.client import Client
from enginery.client.results.hub_result import AsyncHubResult
from enginery.errors import NoSuchEngine, PurgeRefused, QueryRefused, RemoteError, UnknownTask
from enginery.ids import ClientId, EngineId, format_task_id, make_task_id
from enginery.protocol import messages as m
from tests.unit.client.fake_session import FakeSession, make_client

TASK = make_task_id(ClientId(5), 1)
TEXT = format_task_id(TASK)


@pytest.fixture
def parts() -> tuple[Client, FakeSession]:
    return make_client((0, 3))


# ---------------------------------------------------------------- queues


def test_queue_status(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    session.hub.queues = m.QueuesAnswer(
        0,
        [
            m.EngineQueues(EngineId(0), 2, 1, 7),
            m.EngineQueues(EngineId(3), 0, 0, 0, [TASK], [], [TASK, TASK]),
        ],
        4,
        [TASK],
    )
    assert rc.queue_status() == {
        0: {"queue": 2, "completed": 7, "tasks": 1},
        3: {"queue": 0, "completed": 0, "tasks": 0},
        "unassigned": 4,
    }
    assert rc.queue_status(0) == {"queue": 2, "completed": 7, "tasks": 1}
    assert rc.queue_status(-1, verbose=True) == {"queue": [TEXT], "completed": [TEXT, TEXT], "tasks": []}
    assert rc.queue_status([0, 3], verbose=True)["unassigned"] == [TEXT]
    assert session.asked == [
        m.AskQueues(1, [0, 3]),
        m.AskQueues(2, [0]),
        m.AskQueues(3, [3], True),
        m.AskQueues(4, [0, 3], True),
    ]
    with pytest.raises(NoSuchEngine, match="there is no engine 9"):
        rc.queue_status(9)
    session.answer_error = "engine 3 has left"
    with pytest.raises(IndexError, match="engine 3 has left"):
        rc.queue_status()


# ---------------------------------------------------------------- states


def test_result_status(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    first, failing, pending = (
        rc[0].apply_async(abs, -1),
        rc[0].apply_async(lambda: 1 // 0),
        rc[0].apply_async(int),
    )
    (one,), (two,), (three,) = first.msg_ids, failing.msg_ids, pending.msg_ids
    session.step()
    session.step()
    session.hub.on_submitted(TASK, m.TaskOptions(m.Kind.CALL))
    assert rc.result_status([first, 1, three, TEXT]) == {"pending": [three, TEXT], "completed": [one, two]}
    assert rc.result_status(one) == {"pending": [], "completed": [one]}
    assert rc.result_status([one, three], status_only=False) == {
        "pending": [three],
        "completed": [one],
        one: 1,
    }
    assert rc.result_status(first, False)[one] == 1
    with pytest.raises(ZeroDivisionError):
        rc.result_status([one, two], status_only=False)
    with pytest.raises(KeyError, match="no task 00000005-9 is known"):
        rc.result_status("00000005-9")


# ---------------------------------------------------------------- records


def test_hub_history_is_in_the_order_of_submission(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    ar = rc[0].apply_async(int)
    session.hub.add_ended(TASK, 5)
    assert rc.hub_history() == [TEXT, *ar.msg_ids]


def test_db_query(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    ar = rc[0].apply_async(abs, -1)
    ar.wait()
    session.hub.add_ended(TASK, 5, label="night")
    found = rc.db_query({"label": "night"}, ["status"])
    assert found == [{"msg_id": TEXT, "status": "ok"}]
    assert [one["msg_id"] for one in rc.db_query({})] == [TEXT, *ar.msg_ids]
    assert set(rc.db_query({})[0]).isdisjoint({"buffers", "result_buffers"})
    assert rc.db_query({"label": "night"}, ["result_buffers"])[0]["result_buffers"] != [b""]
    questions = [question for question in session.asked if isinstance(question, m.AskHistory)]
    assert [question.with_payloads for question in questions] == [False, True, True, True]
    with pytest.raises(KeyError, match="no operator"):
        rc.db_query({"started": {"$le": 5}})
    with pytest.raises(KeyError, match="records have no key"):
        rc.db_query({}, ["nonsense"])
    session.hub.error = "label lt wants text, not 5"
    with pytest.raises(QueryRefused, match="label lt wants text, not 5") as caught:
        rc.db_query({"label": {"$lt": 5}})
    assert isinstance(caught.value, ValueError)


# ---------------------------------------------------------------- again


def test_resubmit(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    first = rc[3].apply_async(pow, 2, 5)
    second = rc.load_balanced_view(label="night", retries=2).apply_async(bytes.upper, b"a" * 2_000_000)
    rc.wait()
    again = rc.resubmit([first, second], block=True)
    assert type(again) is not AsyncHubResult, "they are this client's"
    assert again.get() == [32, b"A" * 2_000_000]
    assert set(again.msg_ids).isdisjoint([*first.msg_ids, *second.msg_ids])
    assert rc.history == [*first.msg_ids, *second.msg_ids, *again.msg_ids]
    sent = session.submissions[2:]
    assert [call.engines for call in sent] == [(), ()]
    assert (sent[1].options.label, sent[1].options.retries) == ("night", 2)
    assert {blob.blob_id for blob in sent[1].blobs if not blob.keep}.isdisjoint(
        blob.blob_id for blob in session.submissions[1].blobs
    )
    assert rc.resubmit().get() == b"A" * 2_000_000
    assert rc.resubmit(first.msg_ids[0]).get() == 32


def test_a_map_and_executed_text_can_be_resubmitted(parts: tuple[Client, FakeSession]) -> None:
    rc, _ = parts
    amr = rc[:].map_async(abs, [-1, -2, -3])
    amr.wait()
    assert rc.resubmit(amr).get() == [[1, 2], [3]]
    rc[0].execute("x = 7", block=True)
    rc.resubmit().get()


def test_resubmit_what_is_not_known(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    ar = rc[0].apply_async(int)
    with pytest.raises(UnknownTask, match="no call of task 00000005-9 is known, or what it needs") as caught:
        rc.resubmit([ar, "00000005-9"])
    assert isinstance(caught.value, KeyError)
    assert len(session.submissions) == 1, "nothing is sent if not all can be"


def test_calls_are_asked_for_in_portions(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    ars = [rc[0].apply_async(abs, -n) for n in range(20)]
    rc.wait()
    assert rc.resubmit([*ars, ars[0]]).get() == [*range(20), 0]
    asked = [question for question in session.asked if isinstance(question, m.AskCalls)]
    assert [len(question.tasks) for question in asked] == [8, 8, 4]


# ---------------------------------------------------------------- forgetting


def test_purge_hub_results(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    first, second, pending = (rc[engine].apply_async(abs, -1) for engine in (0, 3, 3))
    session.step()
    session.step()
    rc.purge_hub_results(first)
    rc.purge_hub_results(targets=3)
    assert rc.hub_history() == pending.msg_ids
    with pytest.raises(PurgeRefused, match="has not ended") as caught:
        rc.purge_hub_results(pending)
    assert isinstance(caught.value, IndexError)
    assert isinstance(caught.value, KeyError)
    with pytest.raises(PurgeRefused):
        rc.purge_hub_results(second)
    with pytest.raises(ValueError, match="name the tasks or the engines whose results are to be purged"):
        rc.purge_hub_results()
    for wrong in ("x", 1.5, [True]):
        with pytest.raises(TypeError, match="engines are named by their ids"):
            rc.purge_hub_results(targets=wrong)
    with pytest.raises(NoSuchEngine):
        rc.purge_hub_results(targets=-1)
    purges = [question for question in session.asked if isinstance(question, m.PurgeHistory)]
    assert purges[1] == m.PurgeHistory(2 if purges[1].request == 2 else purges[1].request, [], [3])


def test_purge_results_forgets_here_and_there(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    ars = [rc[engine].apply_async(abs, -1) for engine in (0, 3)]
    with pytest.raises(RuntimeError, match="has not ended, and only results can be purged; wait for it"):
        rc.purge_results("all")
    rc.wait()
    rc.purge_results(targets=[3])
    assert list(rc.results) == ars[0].msg_ids
    assert rc.hub_history() == ars[0].msg_ids
    rc.purge_results(ars[0])
    assert len(rc.results) == len(session.hub.tasks) == 0
    assert len(rc.history) == 2


def test_purge_everything(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    ar = rc[0].apply_async(abs, -1)
    with pytest.raises(RuntimeError):
        rc.purge_everything()
    ar.wait()
    rc.purge_everything()
    assert rc.history == rc.hub_history() == []
    assert session.asked[-2] == m.PurgeHistory(session.asked[-2].request, [], [], True)  # type: ignore[attr-defined]
    assert ar.get() == 1


def test_purged_while_somebody_asks_for_it(parts: tuple[Client, FakeSession]) -> None:
    rc, session = parts
    session.hub.on_submitted(TASK, m.TaskOptions(m.Kind.CALL))
    waiting = rc.get_result(TEXT)
    with pytest.raises(PurgeRefused):
        rc.purge_hub_results(TEXT)
    session.end(None, m.TaskResult(TASK, m.Status.ABORTED))
    rc.purge_hub_results(TEXT)
    assert isinstance(waiting.exception(0), RemoteError)
    assert isinstance(rc.get_result(TEXT).exception(0), UnknownTask)


def test_an_engine_that_leaves_during_a_call_is_no_engine_of_the_next(
    parts: tuple[Client, FakeSession],
) -> None:
    rc, session = parts
    view: Any = rc[:]
    session.leave(3)
    assert rc.queue_status("all") == {"unassigned": 0}
    with pytest.raises(NoSuchEngine):
        rc.queue_status([0, 3])
    assert view.targets == [0, 3], "resolved when it was made"
