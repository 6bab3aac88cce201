"""The Hub: states, results of others, records, queries, forgetting; the same on both stores."""

from __future__ import annotations

import datetime
import time
from typing import Any

import pytest

import enginery as ipp
from tests.system.api.held import PATIENCE_S, Gate, each

CLUSTERS = {"sqlite": {"n": 2, "db": "sqlite"}, "memory": {"n": 2, "db": "memory"}}


def ids_of(rc: ipp.Client, query: dict[str, Any]) -> list[str]:
    return [record["msg_id"] for record in rc.db_query(query, ["msg_id"])]


# ---------------------------------------------------------------- get_result


def test_get_result_in_every_form(rc: ipp.Client) -> None:
    first = rc[0].apply_async(pow, 2, 2)
    second = rc[:].apply_async(pow, 2, 3)
    rc.wait(timeout=PATIENCE_S)
    assert rc.get_result().get(PATIENCE_S) == 8
    assert rc.get_result(-3).get(PATIENCE_S) == 4
    assert rc.get_result([-3, -1]).get(PATIENCE_S) == [4, 8]
    assert rc.get_result(first) is first
    assert rc.get_result(first.msg_ids[0]).get(PATIENCE_S) == 4
    assert rc.get_result(second.msg_ids).get(PATIENCE_S) == [8, 8]
    assert rc.get_result([first, second]).get(PATIENCE_S) == [4, 8, 8]
    assert rc.get_result([first.msg_ids[0], second, -1]).get(PATIENCE_S) == [4, 8, 8, 8]
    assert rc.get_result(first.msg_ids[0], block=True).done()
    assert rc.get_result(first.msg_ids[0], owner=False).owner is False
    assert rc.get_result(first.msg_ids[0]).owner is True


def test_a_result_asked_for_twice(rc: ipp.Client, another: ipp.Client) -> None:
    ar = rc[0].apply_async(pow, 3, 3)
    ar.wait(PATIENCE_S)
    (task,) = ar.msg_ids
    for client in (rc, another):
        assert [client.get_result(task).get(PATIENCE_S) for _ in range(2)] == [27, 27]
        assert client.get_result([task, task]).get(PATIENCE_S) == [27, 27]


def test_results_stay_after_their_client_has_left(rc: ipp.Client) -> None:
    with ipp.Client(rc.connection_file) as leaving:
        ar = leaving[:].execute("import sys; print('kept'); print('too', file=sys.stderr)")
        mapped = leaving.load_balanced_view().map_async(abs, range(-5, 0), chunksize=2)
        failed = leaving[0].apply_async(int, "x")
        leaving.wait(timeout=PATIENCE_S)
    found = rc.get_result(ar.msg_ids)
    assert [reply.data for reply in found.get(PATIENCE_S)] == each(rc, {})
    assert found.wait_for_output(PATIENCE_S)
    assert found.stdout == each(rc, "kept\n")
    assert found.stderr == each(rc, "too\n")
    assert rc.get_result(mapped.msg_ids).get(PATIENCE_S) == [[5, 4], [3, 2], [1]]  # a value each
    with pytest.raises(ValueError, match="invalid literal"):
        rc.get_result(failed.msg_ids[0]).get(PATIENCE_S)


def test_unknown_ids(rc: ipp.Client) -> None:
    ar = rc.get_result("3fa9c01b-17")
    with pytest.raises(KeyError, match="3fa9c01b-17"):
        ar.get(PATIENCE_S)
    assert isinstance(ar.exception(), ipp.UnknownTask)
    for use in (rc.result_status, rc.resubmit):
        with pytest.raises(KeyError, match="3fa9c01b-17"):
            use("3fa9c01b-17")
    with pytest.raises(KeyError):
        rc.purge_hub_results("3fa9c01b-17")


@pytest.mark.parametrize(
    ("named", "error"),
    [
        ("nonsense", ValueError),
        ("", ValueError),
        (3.0, TypeError),
        ([None], TypeError),
        (b"3fa9c01b-17", TypeError),
        (True, TypeError),
        ({"a": 1}, TypeError),
        (10**6, IndexError),
        (-(10**6), IndexError),
    ],
)
def test_what_names_no_task(rc: ipp.Client, named: Any, error: type[Exception]) -> None:
    for use in (
        rc.get_result,
        rc.result_status,
        rc.resubmit,
        rc.purge_results,
        rc.purge_local_results,
        rc.purge_hub_results,
        rc.abort,
        rc.wait,
    ):
        with pytest.raises(error):
            use(named)


# ---------------------------------------------------------------- resubmit


def test_resubmit(rc: ipp.Client, another: ipp.Client) -> None:
    ar = rc[0].apply_async(pow, 2, 7)
    ar.wait(PATIENCE_S)
    (task,) = ar.msg_ids
    again = rc.resubmit(task)
    assert again.get(PATIENCE_S) == 128
    assert again.msg_ids != ar.msg_ids
    assert rc.resubmit(ar).get(PATIENCE_S) in (128, [128])
    assert rc.resubmit([task, task], metadata={}, block=True).get(0) == [128, 128]
    assert another.resubmit(task).get(PATIENCE_S) == 128
    assert rc.resubmit(-1).get(PATIENCE_S) == 128
    assert rc.db_query({"msg_id": again.msg_ids[0]})[0]["queue"] == "task"
    assert again.msg_ids[0] in rc.history


def test_resubmit_what_failed_and_what_was_big(rc: ipp.Client) -> None:
    import numpy

    failed = rc[0].apply_async(int, "x")
    big = rc[0].apply_async(lambda a: float(a.sum()), numpy.ones(300_000))
    rc.wait([failed, big], PATIENCE_S)
    with pytest.raises(ValueError, match="invalid literal"):
        rc.resubmit(failed.msg_ids[0]).get(PATIENCE_S)
    assert rc.resubmit(big.msg_ids[0]).get(PATIENCE_S) == 300_000.0


# ---------------------------------------------------------------- states


def test_queue_status_in_full(rc: ipp.Client, gate: Gate) -> None:
    before = rc.queue_status()
    assert set(before) == {0, 1, "unassigned"}
    held = gate.hold(rc[0])
    waiting = rc[0].apply_async(pow, 1, 1)
    balanced = [rc.apply(pow, (1, 1), targets=[0], balanced=True) for _ in range(2)]
    after = rc.apply(pow, (1, 1), after=held)
    status = rc.queue_status(verbose=True)
    assert set(status[0]["queue"]) == {*held.msg_ids, *waiting.msg_ids}
    assert status[1] == {"queue": [], "completed": status[1]["completed"], "tasks": []}
    waiting_ids = {*status[0]["tasks"], *status["unassigned"]}
    assert waiting_ids == {ar.msg_ids[0] for ar in (*balanced, after)}
    counts = rc.queue_status()
    assert counts[0]["queue"] == 2
    assert counts[0]["tasks"] + counts["unassigned"] == 3
    assert rc.queue_status(0) == counts[0]
    assert set(rc.queue_status([0, 1])) == {0, 1, "unassigned"}
    assert rc.queue_status([1])[1] == counts[1]
    gate.open()
    rc.wait([waiting, after, *balanced], PATIENCE_S)
    done = rc.queue_status()
    assert (done[0]["queue"], done[0]["tasks"], done["unassigned"]) == (0, 0, 0)
    assert sum(done[n]["completed"] for n in (0, 1)) == sum(before[n]["completed"] for n in (0, 1)) + 5
    for bad, error in ((7, IndexError), ([0, 7], IndexError), ("0", TypeError)):
        with pytest.raises(error):
            rc.queue_status(bad)


def test_result_status(rc: ipp.Client, another: ipp.Client, gate: Gate) -> None:
    done = rc[0].apply_async(pow, 2, 2)
    failed = rc[0].apply_async(int, "x")
    rc.wait([done, failed], PATIENCE_S)
    held = gate.hold(rc[0])
    for client in (rc, another):
        status = client.result_status([*held.msg_ids, *done.msg_ids, *failed.msg_ids])
        assert status == {"pending": held.msg_ids, "completed": [*done.msg_ids, *failed.msg_ids]}
        assert client.result_status(done.msg_ids[0]) == {"pending": [], "completed": done.msg_ids}
        full = client.result_status([*done.msg_ids, *held.msg_ids], status_only=False)
        assert full[done.msg_ids[0]] == 4
        assert full["pending"] == held.msg_ids
        with pytest.raises(ValueError, match="invalid literal"):
            client.result_status(failed.msg_ids, status_only=False)


def test_hub_history_is_in_the_order_of_submission(rc: ipp.Client, another: ipp.Client) -> None:
    made = []
    for client in (rc, another, rc):
        ar = client[0].apply_async(pow, 1, 1)
        ar.wait(PATIENCE_S)
        made += ar.msg_ids
    assert rc.hub_history()[-3:] == another.hub_history()[-3:] == made


# ---------------------------------------------------------------- records, queries

RECORD_KEYS = {
    "msg_id", "header", "metadata", "content", "buffers", "submitted", "client_uuid", "engine_uuid",
    "started", "completed", "resubmitted", "received", "result_header", "result_metadata", "result_content",
    "result_buffers", "queue", "execute_input", "execute_result", "error", "stdout", "stderr", "label",
}  # fmt: skip


def test_all_keys_of_a_record(rc: ipp.Client) -> None:
    ar = rc.direct_view(1, label="recorded").execute("print('hello'); 6 * 7", silent=False)
    ar.wait(PATIENCE_S)
    (record,) = rc.db_query({"msg_id": ar.msg_ids[0]})
    assert set(record) >= RECORD_KEYS - {"buffers", "result_buffers"}
    assert not {"buffers", "result_buffers"} & set(record)
    assert (record["queue"], record["label"], record["stdout"]) == ("mux", "recorded", "hello\n")
    assert record["execute_input"] == "print('hello'); 6 * 7"
    assert record["execute_result"]["data"]["text/plain"] == "42"
    assert record["engine_uuid"] == ar.engine_uuid
    assert record["submitted"] <= record["started"] <= record["completed"] == record["received"]
    assert record["started"].tzinfo is not None
    assert (record["error"], record["stderr"], record["resubmitted"]) == (None, "", None)
    assert record["result_content"]["status"] == "ok"
    (whole,) = rc.db_query({"msg_id": ar.msg_ids[0]}, ["buffers", "result_buffers", "queue"])
    assert set(whole) == {"msg_id", "buffers", "result_buffers", "queue"}
    (bare,) = rc.db_query({"msg_id": ar.msg_ids[0]}, [])
    assert bare == {"msg_id": ar.msg_ids[0]}


def test_the_record_of_what_runs_and_of_what_failed(rc: ipp.Client, gate: Gate) -> None:
    held = gate.hold(rc.load_balanced_view())
    (record,) = rc.db_query({"msg_id": held.msg_ids[0]})
    assert (record["completed"], record["result_header"], record["queue"]) == (None, None, "task")
    failed = rc.load_balanced_view([1 - held.engine_id if held.engine_id is not None else 0])
    ar = failed.apply_async(int, "x")
    gate.open()
    ar.wait(PATIENCE_S)
    (record,) = rc.db_query({"msg_id": ar.msg_ids[0]})
    assert record["result_content"]["ename"] == "ValueError"
    assert "invalid literal" in record["error"]


@pytest.fixture(scope="module")
def three(rc: ipp.Client) -> tuple[list[str], list[datetime.datetime], str]:
    """Three tasks, one after the other, under one label: their ids, when they ended, the label."""
    label = f"three {time.time_ns()}"
    results = []
    for number in range(3):
        ar = rc.direct_view(number % 2, label=label).apply_async(pow, 2, number)
        ar.wait(PATIENCE_S)
        results.append(ar)
    return [ar.msg_ids[0] for ar in results], [ar.completed for ar in results], label


def test_every_operator_on_a_time(rc: ipp.Client, three: Any) -> None:
    ids, times, label = three
    middle = times[1]
    for condition, expected in (
        ({"$gt": middle}, ids[2:]),
        ({"$gte": middle}, ids[1:]),
        ({"$lt": middle}, ids[:1]),
        ({"$lte": middle}, ids[:2]),
        ({"$eq": middle}, ids[1:2]),
        (middle, ids[1:2]),
        ({"$ne": middle}, [ids[0], ids[2]]),
        ({"$gt": times[0], "$lt": times[2]}, ids[1:2]),
        ({"$in": times[:2]}, ids[:2]),
        ({"$nin": times[:2]}, ids[2:]),
        ({"$exists": True}, ids),
        ({"$exists": False}, []),
        ({"$ne": None}, ids),
        (None, []),
    ):
        assert ids_of(rc, {"label": label, "completed": condition}) == expected, condition


def test_every_operator_on_a_text(rc: ipp.Client, three: Any) -> None:
    ids, _, label = three
    for query, expected in (
        ({"msg_id": ids[0]}, ids[:1]),
        ({"msg_id": {"$in": [ids[2], ids[0]]}}, [ids[0], ids[2]]),
        ({"label": label, "msg_id": {"$nin": ids[:1]}}, ids[1:]),
        ({"label": label, "msg_id": {"$ne": ids[1]}}, [ids[0], ids[2]]),
        ({"label": {"$glob": label[:-1] + "?"}}, ids),
        ({"label": {"$glob": "*" + label[5:]}}, ids),
        ({"label": {"$glob": label + "?"}}, []),
        ({"label": {"$all": [label]}}, ids),
        ({"label": {"$all": [label, "other"]}}, []),
        ({"label": label, "engine_id": {"$mod": [2, 0]}}, [ids[0], ids[2]]),
        ({"label": label, "engine_id": 1}, ids[1:2]),
        ({"label": label, "queue": "mux", "status": "ok", "name": "pow"}, ids),
        ({"label": label, "queue": "task"}, []),
        ({"label": label, "status": {"$ne": "ok"}}, []),
        ({"label": {"$gt": label}, "msg_id": ids[0]}, []),
        ({"label": {"$gte": label}, "msg_id": ids[0]}, ids[:1]),
        ({"msg_id": {"$in": []}}, []),
    ):
        assert ids_of(rc, query) == expected, query


def test_no_query_is_all_of_it(rc: ipp.Client) -> None:
    assert ids_of(rc, {}) == rc.hub_history()


def test_a_question_about_times_while_something_is_pending(rc: ipp.Client, gate: Gate) -> None:
    held = gate.hold(rc[0])
    an_hour_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    done = rc[1].apply_async(pow, 1, 1)
    done.wait(PATIENCE_S)
    assert done.msg_ids[0] in ids_of(rc, {"completed": {"$gt": an_hour_ago}})
    assert held.msg_ids[0] not in ids_of(rc, {"completed": {"$gt": an_hour_ago}})
    assert held.msg_ids[0] in ids_of(rc, {"submitted": {"$gt": an_hour_ago}})
    assert ids_of(rc, {"completed": None}) == held.msg_ids
    assert ids_of(rc, {"completed": {"$exists": False}}) == held.msg_ids


@pytest.mark.parametrize(
    ("query", "keys", "error"),
    [
        ({"colour": 1}, None, KeyError),
        ({"msg_id": {"$like": "x"}}, None, KeyError),
        ({"msg_id": {"$le": "x"}}, None, KeyError),
        ({"msg_id": {"$in": 3}}, None, ValueError),
        ({"submitted": {"$gt": "yesterday"}}, None, ValueError),
        ({"label": {"$mod": [0, 1]}}, None, ValueError),
        ([("msg_id", 1)], None, TypeError),
        ("msg_id", None, TypeError),
        ({}, ["colour"], KeyError),
        ({}, "msg_id", TypeError),
        ({}, [3], TypeError),
    ],
)
def test_queries_that_mean_nothing(rc: ipp.Client, query: Any, keys: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        rc.db_query(query, keys)
    assert len(str(caught.value)) > 20


# ---------------------------------------------------------------- labels


def test_labels(rc: ipp.Client, another: ipp.Client) -> None:
    label = f"night {time.time_ns()}"
    with rc.label(label):
        first = rc[:].apply_async(pow, 2, 2)
        second = rc.load_balanced_view().map_async(abs, [-1, -2, -3], chunksize=2)
        with rc.label("inner"):
            rc[0].apply_async(pow, 1, 1)
        own = rc.direct_view(0, label="own").apply_async(pow, 1, 1)
    rc.wait(timeout=PATIENCE_S)
    assert own["label"] == "own"
    for client in (rc, another):
        found = client.get_label(label)
        assert [ar.get(PATIENCE_S) for ar in found] == [[4, 4], [1, 2, 3]]
        assert [ar.msg_ids for ar in found] == [first.msg_ids, second.msg_ids]
    assert rc.get_label("nothing of that label") == []
    for bad in (3, None):
        with pytest.raises(TypeError), rc.label(bad):
            pytest.fail("entered")


# ---------------------------------------------------------------- forgetting


def test_purge_of_results(rc: ipp.Client, another: ipp.Client) -> None:
    kept, here, there, both = (rc[0].apply_async(pow, 2, n) for n in range(4))
    rc.wait(timeout=PATIENCE_S)
    rc.purge_local_results(here)
    rc.purge_hub_results(there.msg_ids[0])
    rc.purge_results([both])
    known = rc.hub_history()
    assert [ar.msg_ids[0] in known for ar in (kept, here, there, both)] == [True, True, False, False]
    assert [ar.msg_ids[0] in rc.results for ar in (kept, here, both)] == [True, False, False]
    assert here.get() == 2  # who holds a result has its value
    with pytest.raises(KeyError):
        another.get_result(both.msg_ids[0]).get(PATIENCE_S)
    with pytest.raises(KeyError):
        rc.purge_hub_results(both)


def test_purge_of_engines(rc: ipp.Client) -> None:
    on_both = rc[:].apply_async(pow, 2, 2)
    on_both.wait(PATIENCE_S)
    rc.purge_hub_results(targets=1)
    known = rc.hub_history()
    assert [task in known for task in on_both.msg_ids] == [True, False]
    rc.purge_results(targets=[0])
    assert on_both.msg_ids[0] not in rc.hub_history()
    for bad, error in ((-1, IndexError), ("0", TypeError), (1.0, TypeError)):
        with pytest.raises(error):
            rc.purge_results(targets=bad)


def test_purge_of_nothing(rc: ipp.Client) -> None:
    for purge in (rc.purge_results, rc.purge_local_results, rc.purge_hub_results):
        for arguments in ({}, {"jobs": []}, {"targets": []}):
            with pytest.raises(ValueError, match="name the tasks"):
                purge(**arguments)


def test_purge_while_pending(rc: ipp.Client, another: ipp.Client, gate: Gate) -> None:
    held = gate.hold(rc[0])
    with pytest.raises(RuntimeError, match="has not ended"):
        rc.purge_local_results(held)
    with pytest.raises(RuntimeError, match="has not ended"):
        rc.purge_results("all")
    for client in (rc, another):
        with pytest.raises(IndexError) as caught:
            client.purge_hub_results(held.msg_ids)
        assert isinstance(caught.value, ipp.PurgeRefused)
    gate.open()
    assert held.get(PATIENCE_S) == "through"
    assert held.msg_ids[0] in rc.hub_history()
    rc.purge_results(held)
    assert held.msg_ids[0] not in rc.hub_history()


def test_purge_everything(rc: ipp.Client, another: ipp.Client) -> None:
    rc[:].apply_async(pow, 1, 1).wait(PATIENCE_S)
    rc.purge_everything()
    assert rc.history == []
    assert len(rc.results) == len(rc.metadata) == 0
    assert rc.hub_history() == another.hub_history() == []
    assert rc[0].apply_sync(pow, 2, 2) == 4
    assert len(rc.hub_history()) == 1


def test_what_tasks_held_goes_before_what_is_known_of_them() -> None:
    with ipp.Cluster(n=1, payload_limit=0) as rc:
        ar = rc[0].apply_async(lambda: "x" * 1000)
        assert len(ar.get(timeout=PATIENCE_S)) == 1000
        with ipp.Client(rc.connection_file) as other:
            late = other.get_result(ar.msg_ids)
            with pytest.raises(ipp.RemoteError, match="payload_limit"):
                late.get(timeout=PATIENCE_S)
            (record,) = other.db_query({"msg_id": ar.msg_ids[0]})
        assert record["completed"] >= record["started"]
