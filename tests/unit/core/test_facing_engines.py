"""What engines and hosts say to the controller, and what follows."""

from __future__ import annotations

import pytest

from enginery.core.liveness import GRACE_S
from enginery.core.state import Identity
from enginery.ids import BlobId, EngineId, EngineKey, TaskId
from enginery.protocol import messages as m
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
    assert bench.heard(engine) == [m.EngineWelcome("key", EngineId(4), 3, 256 << 20)]
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


def test_a_blob_of_a_result_is_passed_on_and_dropped_when_it_has_arrived() -> None:
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
        (m.Status.ENGINE_DIED, 0, "killed by SIGKILL")
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
    assert site.heard(back) == [m.EngineWelcome("key", EngineId(0), 4, 256 << 20)]
    site.say(back, m.Results(4, [result(1)]))
    assert site.results() == []


def test_a_silent_engine_is_probed() -> None:
    site = Site()
    site.wait(2.0)
    assert site.heard(site.worker) == [m.Ping()]


# ---------------------------------------------------------------- control connection


def test_the_control_connection_is_bound_to_its_engine() -> None:
    site = Site()
    control = site.control()
    assert site.heard(control) == [m.ControlWelcome(EngineId(0))]
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
    assert site.heard(again) == [m.ControlWelcome(EngineId(0)), *asked]
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
    site.say(control, m.EngineOutput(task_id(1), "stdout", "hello"))
    assert site.heard(site.caller) == [m.Output(task_id(1), EngineId(0), "stdout", "hello")]
    assert [type(fact).__name__ for fact in site.commit()] == ["TaskText"]
    site.say(control, m.EngineOutput(task_id(2), "stdout", "not its own"))
    assert site.heard(site.caller) == []


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
