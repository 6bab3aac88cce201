"""What engines and hosts say to the controller, and what follows."""

from __future__ import annotations

import pytest

from enginery.core.cancelling import CANCEL_GRACE_S
from enginery.core.engines import RECENT_TASKS
from enginery.core.facing_engines import RESULT_BYTE_WINDOW
from enginery.core.liveness import GRACE_S
from enginery.core.state import Identity
from enginery.core.voices import TEXT_WAIT_S
from enginery.ids import BlobId, EngineId, EngineKey, TaskId
from enginery.protocol import history as h
from enginery.protocol import messages as m
from enginery.protocol.hosts import PAGE_TASKS
from tests.unit.core.builders import F, options, result, task_id
from tests.unit.core.hub_bench import HubBench

R = BlobId(b"r" * 16)
X = BlobId(b"x" * 16)


class Site(HubBench):
    """A client whose function is here, an engine, and its control connection."""

    def __init__(self) -> None:
        super().__init__()
        self.caller = self.client()
        self.worker = self.engine(host="h0")
        self.put(self.caller)
        self.options = options()
        for peer in (self.caller, self.worker):
            self.heard(peer)

    def submit(self, *numbers: int, blobs: tuple[BlobId, ...] = (), engines: tuple[int, ...] = ()) -> None:
        targets = tuple(map(EngineId, engines))
        calls = [m.Call(number, b"p", blobs, targets) for number in numbers]
        self.say(self.caller, m.Submit(self.options, calls))

    def runs(self, engine: Identity) -> list[tuple[int, int]]:
        return [
            (call.task & 0xFFFF, call.attempt)
            for record in self.heard(engine)
            if isinstance(record, m.Run)
            for call in record.calls
        ]

    def results(self) -> list[m.TaskResult]:
        return [
            result
            for record in self.heard(self.caller)
            if isinstance(record, m.Finished)
            for result in record.results
        ]


def exited(key: str = "e0", *started: int, proof: bool = True) -> m.EngineExited:
    return m.EngineExited(EngineKey(key), 1, "killed by SIGKILL", [task_id(n) for n in started], proof, False)


def test_an_engine_is_welcomed_and_announced() -> None:
    bench = HubBench()
    client = bench.client()
    bench.heard(client)
    engine = bench.engine(wanted=4, first_result=3)
    assert bench.heard(engine) == [m.EngineWelcome("key", EngineId(4), 3, RESULT_BYTE_WINDOW)]
    (changed,) = bench.heard(client)
    assert isinstance(changed, m.EnginesChanged)
    assert [(info.engine, info.key, info.host) for info in changed.joined] == [(4, "e0", "host")]


def test_a_task_comes_behind_its_function_which_is_sent_once() -> None:
    site = Site()
    site.submit(1)
    put, run = site.heard(site.worker)
    assert isinstance(put, m.PutBlob)
    assert put.blob == F
    assert run == m.Run(
        m.RunOptions(m.Kind.CALL, F, "f", True), [m.EngineCall(task_id(1), 1, b"p")]
    )  # fmt: skip
    site.say(site.worker, m.Results(0, [result(1)]))
    site.submit(2)
    assert [type(record) for record in site.heard(site.worker)] == [m.Run]


def test_results_are_stored_after_the_commit_and_seen_once() -> None:
    site = Site()
    site.submit(1)
    site.heard(site.worker)
    for _ in range(2):
        site.say(site.worker, m.Results(0, [result(1)]))
    assert len(site.results()) == 1
    assert site.heard(site.worker) == []
    site.commit()
    assert site.heard(site.worker) == [m.Stored(1)]


def test_a_result_out_of_order_is_not_stored_beyond_the_hole() -> None:
    site = Site()
    site.submit(1)
    site.heard(site.worker)
    site.say(site.worker, m.Results(1, [result(1)]))
    site.commit()
    assert site.heard(site.worker) == [m.Stored(0)]


def test_a_blob_of_a_result_is_passed_on_and_kept_for_others() -> None:
    site = Site()
    site.submit(1)
    site.heard(site.worker)
    site.put(site.worker, R, b"value", keep=False)
    answer = result(1)
    answer.blobs = (R,)
    site.say(site.worker, m.Results(0, [answer]))
    assert [type(record) for record in site.heard(site.caller)] == [m.PutBlob, m.Finished]
    assert site.hub.state.blobs.missing([R]) == []
    site.say(site.caller, m.Received(1))
    assert site.hub.state.blobs.missing([R]) == [], "others may ask for it"
    site.hub.state.ended_blobs.clear()
    assert site.hub.state.blobs.missing([R]) == [R]


@pytest.mark.parametrize("late", ["again", "of another attempt"])
def test_the_blob_of_a_late_result_is_not_kept(late: str) -> None:
    site = Site()
    site.submit(1)
    site.heard(site.worker)
    if late == "again":
        site.say(site.worker, m.Results(0, [result(1)]))
    site.put(site.worker, R, b"value", keep=False)
    answer = result(1, attempt=1 if late == "again" else 2)
    answer.blobs = (R,)
    site.say(site.worker, m.Results(0, [answer]))
    assert site.hub.state.blobs.missing([R]) == [R]


@pytest.mark.parametrize("status", [m.Status.ERROR, m.Status.UNMET])
def test_the_blob_of_a_result_that_nobody_gets_is_not_kept(status: m.Status) -> None:
    site = Site()
    site.options = options(retries=1)
    site.submit(1)
    site.heard(site.worker)
    other = site.engine("e1")
    site.put(site.worker, R, b"value", keep=False)
    answer = result(1, status=status)
    answer.blobs = (R,)
    site.say(site.worker, m.Results(0, [answer]))
    assert site.hub.state.blobs.missing([R]) == [R]
    site.wait(0.1)
    assert site.runs(other) == [(1, 2)]


def test_a_result_whose_blob_is_not_here_is_refused() -> None:
    site = Site()
    site.submit(1)
    site.heard(site.worker)
    answer = result(1)
    answer.blobs = (R,)
    site.say(site.worker, m.Results(0, [answer]))
    assert [(result.status, result.blobs) for result in site.results()] == [(m.Status.REFUSED, ())]


def test_forgotten_blobs_are_sent_again_with_their_task() -> None:
    site = Site()
    site.put(site.caller, X, b"data", keep=False)
    site.submit(1, blobs=(X,))
    site.heard(site.worker)
    site.say(site.worker, m.BlobsMissing(task_id(1), 1, [F, X]))
    assert [type(record) for record in site.heard(site.worker)] == [m.PutBlob, m.PutBlob, m.Run]
    site.say(site.worker, m.BlobsMissing(task_id(1), 9, [F]))
    assert site.heard(site.worker) == []


def test_blobs_of_one_task_are_dropped_with_it() -> None:
    site = Site()
    site.put(site.caller, X, b"data", keep=False)
    site.submit(1, blobs=(X,))
    site.heard(site.worker)
    site.say(site.worker, m.Results(0, [result(1)]))
    assert site.heard(site.worker) == [m.DropBlobs([X])]
    assert site.hub.state.blobs.missing([X]) == [], "the call may be asked for"
    site.hub.state.ended_blobs.clear()
    assert site.hub.state.blobs.missing([X]) == [X]


# ---------------------------------------------------------------- ends


def test_a_death_is_explained_to_the_task_and_to_the_clients() -> None:
    site = Site()
    host = site.host()
    site.submit(1)
    assert site.runs(site.worker) == [(1, 1)]
    site.say(host, exited("e0", 1))
    assert not site.hub.knows(site.worker)
    changed, finished = site.heard(site.caller)
    assert changed == m.EnginesChanged(
        [], [m.EngineLeft(EngineId(0), EngineKey("e0"), "killed by SIGKILL")]
    )  # fmt: skip
    assert isinstance(finished, m.Finished)
    assert [(r.status, r.engine, r.detail) for r in finished.results] == [
        (m.Status.ENGINE_DIED, 0, "killed by SIGKILL, on host host")
    ]


def test_a_death_that_is_reported_again_is_no_news() -> None:
    site = Site()
    host = site.host()
    for _ in range(2):
        site.say(host, exited())
    assert [type(record) for record in site.heard(site.caller)] == [m.EnginesChanged]


def test_results_that_come_behind_the_report_of_a_death_change_nothing() -> None:
    site = Site()
    host = site.host()
    site.submit(1)
    site.runs(site.worker)
    site.say(host, exited("e0", 1))
    site.say(site.worker, m.Results(0, [result(1)]), m.Started(task_id(1), 1), m.Ping())
    assert [result.status for result in site.results()] == [m.Status.ENGINE_DIED]


def test_the_hello_of_a_dead_engine_comes_too_late() -> None:
    bench = HubBench()
    bench.say(bench.host(), exited("e7"))
    hello = m.EngineHello("e7", b"s", m.Versions("1", (3, 11)), "h", "", 1, EngineId(-1), [], 0)  # type: ignore[arg-type]
    assert bench.refused(hello) == "this engine's process has ended"


def test_unstarted_tasks_of_a_dead_engine_run_elsewhere() -> None:
    site = Site()
    host = site.host()
    other = site.engine("e1")
    site.heard(other)
    site.submit(1, 2, 3)
    assert site.runs(site.worker) + site.runs(other) == [(1, 1), (2, 1)]
    site.say(host, exited("e0"))
    site.say(other, m.Results(0, [result(2)]))
    assert site.runs(other) == [(1, 2)]


def test_a_goodbye_gives_everything_unstarted_back() -> None:
    site = Site()
    site.submit(1)
    site.runs(site.worker)
    site.say(site.worker, m.Goodbye())
    assert site.runs(site.engine("e1")) == [(1, 2)]


def test_what_an_engine_had_begun_does_not_run_again_when_it_leaves() -> None:
    """Its results may be on their way still: it says what it has begun, not only what it runs."""
    site = Site()
    site.submit(1)
    site.runs(site.worker)
    other = site.engine("e1")
    site.say(site.worker, m.Goodbye([(task_id(1), 1), (task_id(9), 1)]))
    assert site.runs(other) == []
    left, finished = site.heard(site.caller)[-2:]
    assert isinstance(left, m.EnginesChanged)
    assert left.left == [m.EngineLeft(EngineId(0), EngineKey("e0"), "it was stopped", True)]
    assert isinstance(finished, m.Finished)
    assert [(r.status, r.detail) for r in finished.results] == [(m.Status.ENGINE_DIED, "it was stopped")]


def test_an_earlier_attempt_is_not_the_one_that_an_engine_holds_when_it_leaves() -> None:
    site = Site()
    site.options = options(retries=1)
    site.submit(1)
    site.runs(site.worker)
    site.say(site.worker, m.Results(0, [result(1, status=m.Status.ERROR)]))
    site.wait(0.1)
    assert site.runs(site.worker) == [(1, 2)]
    site.say(site.worker, m.Goodbye([(task_id(1), 1)]))
    assert site.runs(site.engine("e1")) == [(1, 3)]


def test_an_engine_that_cannot_say_what_it_has_begun_may_have_begun_all() -> None:
    site = Site()
    site.submit(1)
    site.runs(site.worker)
    site.say(site.worker, m.Goodbye(None))
    assert site.runs(site.engine("e1")) == []
    assert [result.status for result in site.results()] == [m.Status.ENGINE_DIED]


@pytest.mark.parametrize("ended", [PAGE_TASKS - 1, PAGE_TASKS])
def test_a_full_status_page_is_no_proof_for_a_task_from_before_it(ended: int) -> None:
    site = Site()
    host = site.host()
    site.submit(1)
    site.runs(site.worker)
    other = site.engine("e1")
    load = site.hub.state.scheduler.load(EngineId(0))
    assert load is not None
    load.completed += ended
    begun = [task_id(number) for number in range(100, 100 + PAGE_TASKS)]
    site.say(host, m.EngineExited(EngineKey("e0"), 1, "killed by SIGKILL", begun, True, True))
    assert site.runs(other) == ([] if ended == PAGE_TASKS else [(1, 2)])
    changes = [record for record in site.heard(site.caller) if isinstance(record, m.EnginesChanged)]
    assert [left.expected for change in changes for left in change.left] == [True], "the host's word"


def test_a_task_counts_what_has_ended_before_it_was_sent() -> None:
    site = Site()
    for number in (1, 2, 3):
        site.submit(number)
        site.runs(site.worker)
        task = site.hub.state.scheduler.task(task_id(number))
        assert task is not None
        assert task.completed_before == number - 1
        site.say(site.worker, m.Results(number - 1, [result(number)]))


def test_disconnected_is_not_dead() -> None:
    site = Site()
    site.submit(1)
    site.runs(site.worker)
    site.lose(site.worker)
    site.wait(GRACE_S - 1.0)
    assert site.results() == []
    back = site.engine(held=((task_id(1), 1),))
    assert site.heard_names(back) == ["EngineWelcome"]
    site.say(back, m.Results(0, [result(1)]))
    assert [result.status for result in site.results()] == [m.Status.OK]


def test_what_was_under_way_to_an_engine_is_sent_again_with_its_blobs() -> None:
    site = Site()
    site.submit(1)
    site.heard(site.worker)
    site.lose(site.worker)
    assert site.heard_names(site.engine()) == ["EngineWelcome", "PutBlob", "Run"]


def test_after_the_grace_an_engine_is_lost() -> None:
    site = Site()
    site.submit(1)
    site.runs(site.worker)
    site.lose(site.worker)
    site.wait(GRACE_S)
    (ended,) = site.results()
    assert (ended.status, ended.detail) == (m.Status.ENGINE_LOST, "it has not been heard of for 60 s")


def test_an_engine_that_was_lost_and_comes_back_is_a_new_one() -> None:
    site = Site()
    site.submit(1)
    site.runs(site.worker)
    site.lose(site.worker)
    site.wait(GRACE_S)
    site.heard(site.caller)
    back = site.engine(wanted=0, held=((task_id(1), 1),), first_result=4)
    assert site.heard(back) == [m.EngineWelcome("key", EngineId(0), 4, RESULT_BYTE_WINDOW, [(task_id(1), 1)])]
    site.say(back, m.Results(4, [result(1)]))
    assert site.results() == []


def test_an_engine_that_was_lost_does_not_begin_what_has_gone_elsewhere() -> None:
    site = Site()
    site.options = options(retries=1)
    site.submit(1)
    site.runs(site.worker)
    other = site.engine("e1")
    site.lose(site.worker)
    site.wait(GRACE_S + 0.1)
    assert site.runs(other) == [(1, 2)]
    back = site.engine(wanted=0, held=((task_id(1), 1), (task_id(7), 1)))
    (welcome,) = site.heard(back)
    assert isinstance(welcome, m.EngineWelcome)
    assert welcome.unwanted == [(task_id(1), 1), (task_id(7), 1)]
    again = site.engine("e1", held=((task_id(1), 2), (task_id(1), 1)))
    (welcome,) = site.heard(again)
    assert isinstance(welcome, m.EngineWelcome)
    assert welcome.unwanted == [(task_id(1), 1)], "what it is to run stays"


def test_a_silent_engine_is_probed() -> None:
    site = Site()
    site.wait(2.0)
    assert site.heard(site.worker) == [m.Ping()]


# ---------------------------------------------------------------- control connection


def test_the_control_connection_is_bound_to_its_engine() -> None:
    site = Site()
    control = site.control()
    assert site.heard(control) == [m.ControlWelcome(EngineId(0), CANCEL_GRACE_S, "key")]
    refusal = site.refused(m.ControlHello(EngineKey("e0"), b"x"))
    assert refusal == "another process has registered under this engine's key"


def test_a_control_connection_that_comes_before_its_engine_is_not_refused() -> None:
    bench = HubBench()
    assert not bench.hub.knows(bench.control())
    bench.engine()
    assert bench.hub.knows(bench.control())


def test_a_take_back_is_asked_again_on_a_new_control_connection() -> None:
    site = Site()
    control = site.control()
    site.heard(control)
    site.submit(1)
    site.runs(site.worker)
    site.say(site.caller, m.Abort([task_id(1)]))
    asked = [m.TakeBack([(task_id(1), 1)])]
    assert site.heard(control) == asked
    again = site.control()
    assert site.heard(again) == [m.ControlWelcome(EngineId(0), CANCEL_GRACE_S, "key"), *asked]
    site.say(again, m.TakenBack([(task_id(1), 1)], []))
    assert [result.status for result in site.results()] == [m.Status.ABORTED]


def test_an_abort_waits_for_the_control_connection() -> None:
    site = Site()
    site.submit(1)
    site.runs(site.worker)
    site.say(site.caller, m.Abort([task_id(1)]))
    assert site.heard_names(site.control()) == ["ControlWelcome", "TakeBack"]


def test_text_reaches_the_client_and_the_store() -> None:
    site = Site()
    control = site.control()
    site.submit(1)
    site.runs(site.worker)
    site.commit()
    site.heard(site.caller)
    site.say(control, m.EngineOutput(task_id(1), "stdout", "hello", 2, 7))
    assert site.heard(site.caller) == [m.Output(task_id(1), EngineId(0), "stdout", "hello", 2, 7)]
    assert [type(fact).__name__ for fact in site.commit()] == ["TaskText"]
    site.say(control, m.EngineOutput(task_id(2), "stdout", "not its own"))
    assert site.heard(site.caller) == []


def test_displays_reach_the_client_and_the_store() -> None:
    site = Site()
    control = site.control()
    site.submit(1)
    site.runs(site.worker)
    site.commit()
    site.heard(site.caller)
    half = "display_data", b"half", 5, False
    site.say(control, m.EngineDisplay(task_id(1), *half, 2, 7))
    assert site.heard(site.caller) == [m.Display(task_id(1), EngineId(0), *half, 2, 7)]
    assert site.commit() == [h.TaskDisplay(task_id(1), *half)]
    site.say(control, m.EngineDisplay(task_id(2), "display_data", b"not its own"))
    assert site.heard(site.caller) == []


def test_what_was_lost_on_the_way_to_a_client_is_said_again() -> None:
    site = Site()
    control = site.control()
    site.submit(1)
    site.runs(site.worker)
    for number in (1, 2):
        site.say(control, m.EngineOutput(task_id(1), "stdout", "a", 1, number))
    site.lose(site.caller)
    site.say(control, m.EngineOutput(task_id(1), "stdout", "b", 1, 3))
    again = site.client()
    site.say(control, m.EngineOutput(task_id(1), "stdout", "c", 1, 4))
    heard = [record for record in site.heard(again) if isinstance(record, m.Output)]
    assert [(text.text, text.number) for text in heard] == [("a", 1), ("a", 2), ("b", 3), ("c", 4)]


def test_progress_reaches_the_client_and_not_the_store() -> None:
    site = Site()
    control = site.control()
    site.submit(1)
    site.runs(site.worker)
    site.commit()
    site.heard(site.caller)
    how_far = 10, 3, 1, 1, m.Report(0.3, "epoch 3")
    site.say(control, m.EngineProgress(task_id(1), 1, *how_far))
    assert site.heard(site.caller) == [m.Progress(task_id(1), EngineId(0), 1, *how_far)]
    site.say(
        control,
        m.EngineProgress(task_id(1), 2, *how_far),  # of an attempt that there is not
        m.EngineProgress(task_id(2), 1, *how_far),  # of a task that it does not have
    )
    site.say(site.worker, m.Results(0, [result(1)]))
    site.say(control, m.EngineProgress(task_id(1), 1, *how_far))
    assert site.heard_names(site.caller) == ["Finished"]
    assert [type(fact) for fact in site.commit()] == [h.TaskEnded]


def test_what_is_tried_again_begins_again() -> None:
    site = Site()
    control = site.control()
    site.say(site.caller, m.Submit(options(retries=1), [m.Call(1, b"")]))
    site.commit()
    site.runs(site.worker)
    site.heard(site.caller)
    site.say(control, m.EngineProgress(task_id(1), 1, 10, 7, 7, 0, m.Report(0.7)))
    site.say(site.worker, m.Results(0, [result(1, status=m.Status.ERROR)]))
    site.hub.settle(now=site.now)
    site.wait(60.0)  # longer than it rests
    assert [record for record in site.heard(site.caller) if isinstance(record, m.Progress)] == [
        m.Progress(task_id(1), EngineId(0), 1, 10, 7, 7, 0, m.Report(0.7)),
        m.Progress(task_id(1), EngineId(0), 2, 10),
    ]
    assert site.runs(site.worker) == [(1, 2)]


def test_the_last_report_stays_with_the_task_though_its_engine_dies() -> None:
    site = Site()
    control = site.control()
    site.submit(1)
    site.runs(site.worker)
    site.say(control, m.EngineProgress(task_id(1), 1, report=m.Report(0.3, "epoch 3")))
    site.say(site.host(), exited("e0", 1))
    (ended,) = site.results()
    assert (ended.status, ended.report) == (m.Status.ENGINE_DIED, m.Report(0.3, "epoch 3"))
    (fact,) = [fact for fact in site.commit() if isinstance(fact, h.TaskEnded)]
    assert fact.result.report == m.Report(0.3, "epoch 3")


def test_what_a_failed_attempt_has_written_is_heard_when_it_is_tried_again() -> None:
    site = Site()
    site.say(site.caller, m.Submit(options(retries=1), [m.Call(1, b"")]))
    site.commit()
    site.runs(site.worker)
    site.heard(site.caller)
    failed = m.EngineResult(task_id(1), 1, m.Status.ERROR, b"", stdout="a\n", stderr="b\n")
    site.say(site.worker, m.Results(0, [failed]))
    assert site.heard(site.caller) == [
        m.Output(task_id(1), EngineId(0), "stdout", "a\n", 1, 0),
        m.Output(task_id(1), EngineId(0), "stderr", "b\n", 1, 0),
    ]
    texts = [fact for fact in site.commit() if isinstance(fact, h.TaskText)]
    assert [(fact.stream, fact.text) for fact in texts] == [("stdout", "a\n"), ("stderr", "b\n")]


def test_a_host_speaks_for_its_own_engines_only() -> None:
    site = Site()
    site.say(site.host("h1"), exited())
    assert site.hub.knows(site.worker)


def test_a_goodbye_of_the_control_connection_ends_only_that() -> None:
    site = Site()
    control = site.control()
    site.say(control, m.Goodbye())
    assert not site.hub.knows(control)
    assert site.hub.knows(site.worker)
    site.wait(100.0)
    assert TaskId(0) not in site.hub.state.scheduler._tasks


# ---------------------------------------------------------------- written past Python


def text_of(number: int, text: str, *, key: str = "e0", serial: int = 1, mark: int = 0) -> m.ProcessText:
    return m.ProcessText(EngineKey(key), serial, task_id(number), "stdout", text, min(mark, 1), mark)


def test_text_past_python_takes_its_place_and_is_remembered() -> None:
    site = Site()
    host, control = site.host(), site.control()
    site.submit(1)
    site.heard(site.worker)
    site.say(control, m.EngineOutput(task_id(1), "stdout", "before\n", 1, 1))
    site.say(control, m.EngineOutput(task_id(1), "stdout", "", 1, 2, mark=1))
    site.say(control, m.EngineOutput(task_id(1), "stdout", "after\n", 1, 3))
    site.say(host, text_of(1, "past\n", mark=1))
    said = [record for record in site.heard(site.caller) if isinstance(record, m.Output)]
    assert [(one.text, one.number) for one in said] == [("before\n", 1), ("past\n", 2), ("after\n", 3)]
    texts = [fact.text for fact in site.commit() if isinstance(fact, h.TaskText)]
    assert texts == ["before\n", "past\n", "after\n"]


def test_text_past_python_is_passed_on_in_time_without_a_mark() -> None:
    site = Site()
    host = site.host()
    site.submit(1)
    site.heard(site.worker)
    site.say(host, text_of(1, "past\n"))
    assert site.heard(site.caller) == []
    site.wait(TEXT_WAIT_S)
    assert site.heard(site.caller) == [m.Output(task_id(1), EngineId(0), "stdout", "past\n")]


def test_a_host_speaks_for_its_own_engines_and_their_tasks_only() -> None:
    site = Site()
    host, stranger = site.host(), site.host("h1")
    site.submit(1)
    site.heard(site.worker)
    site.say(stranger, text_of(1, "not its engine"))
    site.say(host, text_of(2, "not its task"), text_of(1, "no engine", key="e7"))
    site.wait(TEXT_WAIT_S)
    assert site.heard(site.caller) == []


def test_text_that_comes_after_its_engine_said_goodbye() -> None:
    site = Site()
    host = site.host()
    site.submit(1)
    site.heard(site.worker)
    site.say(site.worker, m.Results(0, [result(1)]), m.Goodbye())
    site.heard(site.caller)
    site.say(host, text_of(1, "late\n", mark=1), text_of(2, "not its task", serial=2))
    assert site.heard(site.caller) == [m.Output(task_id(1), EngineId(0), "stdout", "late\n")]


def test_the_last_words_of_an_engine_come_before_the_end_of_its_tasks() -> None:
    site = Site()
    host, control = site.host(), site.control()
    site.submit(1, 2)
    site.heard(site.worker)
    site.say(control, m.EngineOutput(task_id(1), "stdout", "known\n", 1, 1, written=1))
    site.say(host, text_of(1, "past\n"))
    end = exited("e0", 1)
    end.words = (
        m.LastWord(1, task_id(1), 1, "stdout", False, 0, "known\n"),
        m.LastWord(2, task_id(9), 1, "stdout", False, 0, "of a task that has ended\n"),
        m.LastWord(3, task_id(1), 2, "stdout", False, 0, "of another attempt\n"),
        m.LastWord(4, task_id(1), 1, "stderr", False, 0, "last\n"),
    )
    site.say(host, end)
    heard = site.heard(site.caller)
    texts = [record.text for record in heard if isinstance(record, m.Output)]
    assert texts == ["known\n", "last\n", "past\n"]
    kinds = [type(record) for record in heard]
    assert kinds.index(m.Finished) > max(place for place, kind in enumerate(kinds) if kind is m.Output)
    texts = [fact.text for fact in site.commit() if isinstance(fact, h.TaskText)]
    assert texts == ["known\n", "last\n", "past\n"]


def test_words_that_came_with_a_result_are_not_said_again() -> None:
    site = Site()
    host = site.host()
    site.submit(1, 2)
    site.heard(site.worker)
    answer = result(1)
    answer.stdout, answer.written = "with it\n", 1
    site.say(site.worker, m.Results(0, [answer]))
    site.heard(site.caller)
    end = exited("e0", 1, 2)
    end.words = (
        m.LastWord(1, task_id(1), 1, "stdout", False, 0, "with it\n"),
        m.LastWord(2, task_id(1), 1, "stdout", True, 0, "of its thread\n"),
        m.LastWord(3, task_id(2), 1, "stdout", False, 0, "last\n"),
    )
    site.say(host, end)
    texts = [record.text for record in site.heard(site.caller) if isinstance(record, m.Output)]
    assert texts == ["of its thread\n", "last\n"]


@pytest.mark.parametrize("lingers", [True, False])
def test_a_task_that_has_left_something_running_is_known_for_longer(lingers: bool) -> None:
    site = Site()
    control = site.control()
    for number in range(1, RECENT_TASKS + 2):
        site.submit(number)
        site.heard(site.worker)
        answer = result(number)
        answer.lingers = lingers and number == 1
        site.say(site.worker, m.Results(number - 1, [answer]))
    site.heard(site.caller)
    site.say(control, m.EngineOutput(task_id(1), "stdout", "late\n"))
    assert bool(site.heard(site.caller)) is lingers
