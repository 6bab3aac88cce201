"""Set-up that stays: what is recorded, whom it replaces, and what an engine is given that comes."""

from __future__ import annotations

import pytest

from enginery.core.set_up import BYTES_KEPT, STEPS_KEPT, THE_CLUSTER, SetUp, Step
from enginery.core.state import Identity
from enginery.ids import BlobId, ClientId, EngineId, TaskId, make_task_id, task_client
from enginery.protocol import messages as m
from tests.unit.core.hub_bench import HubBench

E0, E1 = EngineId(0), EngineId(1)


def keep(set_up: SetUp, what: str, *engines: EngineId, task: int = 1, size_bytes: int = 0) -> Step:
    """For all engines if none is named."""
    options = m.TaskOptions(m.Kind.PUSH, keep=what, keep_for_all=not engines)
    step, _ = set_up.on_kept(
        options, b"payload", (), engines or (E0, E1), tasks=[TaskId(task)], size_bytes=size_bytes, now=1.0
    )
    set_up.check()
    return step


def names(steps: list[Step]) -> list[str]:
    return [step.options.keep for step in steps]


def test_steps_are_for_all_engines_or_for_the_places_of_some() -> None:
    set_up = SetUp()
    keep(set_up, "a")
    keep(set_up, "b", E1)
    assert names(set_up.of(E1)) == ["a", "b"]
    assert names(set_up.of(E0)) == names(set_up.of(EngineId(7))) == ["a"]


def test_the_last_of_one_name_counts_and_stands_at_the_end() -> None:
    set_up = SetUp()
    first = keep(set_up, "a")
    keep(set_up, "b")
    again = keep(set_up, "a")
    other = keep(set_up, "a", E1)  # for other places: another step
    assert names(set_up.of(E1)) == ["b", "a", "a"]
    assert again.number != first.number
    assert set_up.forget([again.number, 99]) == [again]
    assert set_up.of(E1)[1:] == [other]
    set_up.check()


def test_a_step_that_raises_is_not_kept() -> None:
    set_up = SetUp()
    step = keep(set_up, "a", task=5)
    assert set_up.on_ended(TaskId(6), has_raised=True) == []
    assert set_up.on_ended(TaskId(5), has_raised=True) == [step]
    assert len(set_up) == 0
    keep(set_up, "b", task=7)
    assert set_up.on_ended(TaskId(7), has_raised=False) == []
    assert len(set_up) == 1
    set_up.check()


def test_it_is_bounded() -> None:
    set_up = SetUp()
    assert not set_up.has_room(BYTES_KEPT + 1)
    for number in range(STEPS_KEPT):
        assert set_up.has_room(1)
        keep(set_up, str(number))
    assert not set_up.has_room(1)
    assert repr(set_up) == f"<SetUp of {STEPS_KEPT} steps, {7 * STEPS_KEPT} bytes>"


# ---------------------------------------------------------------- at the controller


class Site(HubBench):
    """A client and an engine."""

    def __init__(self) -> None:
        super().__init__()
        self.caller = self.client()
        self.engine_0 = self.engine("e0")
        self.number = 0

    def call(
        self, *engines: int, keep: str = "", for_all: bool = True, blobs: tuple[BlobId, ...] = ()
    ) -> int:
        self.number += 1
        options = m.TaskOptions(m.Kind.EXECUTE, name="execute", keep=keep, keep_for_all=for_all)
        call = m.Call(self.number, b"text", blobs, engines)  # type: ignore[arg-type]
        self.say(self.caller, m.Submit(options, [call]))
        return self.number

    def given(self, engine: Identity) -> list[TaskId]:
        runs = [record for record in self.heard(engine) if isinstance(record, m.Run)]
        return [call.task for run in runs for call in run.calls]

    def ended(self, engine: Identity, *tasks: TaskId, status: m.Status = m.Status.OK) -> None:
        first = self.hub.state.results_seen[EngineId(engine[1])].low  # type: ignore[call-overload]
        results = [m.EngineResult(task, 1, status, b"", (), 1.0, 2.0) for task in tasks]
        self.say(engine, m.Results(first, results))

    def steps(self) -> list[str]:
        self.say(self.caller, m.AskSetUp(1))
        (answer,) = [record for record in self.heard(self.caller) if isinstance(record, m.SetUpAnswer)]
        return [step.what for step in answer.steps]


@pytest.fixture
def site() -> Site:
    return Site()


def own(number: int) -> TaskId:
    return make_task_id(ClientId(1), number)


def test_an_engine_that_comes_is_set_up_before_anything_else_runs_there(site: Site) -> None:
    site.call(0, keep="first")
    site.call(0, keep="second")
    site.call(-1)  # any engine: it goes to engine 0
    engine_1 = site.engine("e1")
    direct, balanced = site.call(1), site.call()
    first, second = site.given(engine_1)
    assert task_client(first) == task_client(second) == THE_CLUSTER
    site.ended(engine_1, first)
    assert site.given(engine_1) == [], "one step is to come"
    site.ended(engine_1, second)
    assert own(direct) in site.given(engine_1)
    assert site.hub.state.scheduler.task(own(balanced)) is not None


def test_steps_for_some_places_are_made_when_these_come_again(site: Site) -> None:
    site.call(0, keep="only there", for_all=False)
    assert site.given(site.engine("e1")) == []
    site.say(site.engine_0, m.Goodbye(()))
    (task,) = site.given(site.engine("e2", wanted=0))
    assert task_client(task) == THE_CLUSTER


def test_an_engine_that_its_client_did_not_know_gets_the_step_at_once(site: Site) -> None:
    engine_1 = site.engine("e1")
    site.call(0, keep="late")
    (task,) = site.given(engine_1)
    assert task_client(task) == THE_CLUSTER


def test_what_steps_need_stays_until_they_are_forgotten(site: Site) -> None:
    site.put(site.caller, BlobId(b"b" * 16), b"data", keep=False)
    site.call(0, keep="push x", blobs=(BlobId(b"b" * 16),))
    (task,) = site.given(site.engine_0)
    site.ended(site.engine_0, task)
    assert site.hub.state.blobs.missing([BlobId(b"b" * 16)]) == []
    engine_1 = site.engine("e1")
    assert "PutBlob" in site.heard_names(engine_1)
    site.ended(engine_1, *site.hub.state.scheduler.tasks_of(E1))
    assert site.steps() == ["push x"]
    site.say(site.caller, m.ForgetSetUp(2, []))
    assert site.steps() == []
    site.hub.state.ended_blobs.clear()  # which are kept for `resubmit`
    assert site.hub.state.blobs.missing([BlobId(b"b" * 16)]) == [BlobId(b"b" * 16)]


def test_what_raises_is_not_kept_but_what_raises_on_a_late_engine_is_told(site: Site) -> None:
    site.call(0, keep="wrong")
    site.call(0, keep="right")
    (wrong,) = site.given(site.engine_0)
    site.ended(site.engine_0, wrong, status=m.Status.ERROR)
    (right,) = site.given(site.engine_0)
    site.ended(site.engine_0, right)
    assert site.steps() == ["right"]
    engine_1 = site.engine("e1")
    (task,) = site.given(engine_1)
    site.ended(engine_1, task, status=m.Status.ERROR)
    assert site.steps() == ["right"]
    assert [note.task for note in site.hub.state.failures] == [own(1), task]
    site.call(1)
    assert site.given(engine_1), "it serves all the same"


def test_more_than_there_is_room_for_is_said(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enginery.core.set_up.STEPS_KEPT", 1)
    site.call(0, keep="one")
    site.call(0, keep="two")
    assert site.steps() == ["one"]
    assert "not kept" in site.hub.state.failures[-1].error


def test_an_engine_that_says_hello_again_goes_on_with_its_set_up(site: Site) -> None:
    site.call(0, keep="a")
    engine_1 = site.engine("e1")
    (task,) = site.given(engine_1)
    site.lose(engine_1)
    engine_1 = site.engine("e1", wanted=1)
    assert site.given(engine_1) == [task], "it was lost on the way"
    site.call(1)
    assert site.given(engine_1) == []
    site.ended(engine_1, task)
    assert site.given(engine_1)


def test_an_engine_that_dies_while_it_is_set_up(site: Site) -> None:
    site.call(0, keep="a")
    engine_1 = site.engine("e1")
    assert site.given(engine_1)
    site.say(engine_1, m.Goodbye(()))
    assert not [task for task in site.hub.state.scheduler if task_client(task) == THE_CLUSTER]
