"""What clients say to the controller, and what they hear."""

from __future__ import annotations

from enginery.core.facing_clients import CLIENT_GRACE_S
from enginery.core.given_orders import ANSWERS_KEPT
from enginery.ids import BlobId, ClientId, EngineId, HostKey, TaskId
from enginery.protocol import history as h
from enginery.protocol import messages as m
from tests.unit.core.builders import F, on, options, result, task_id
from tests.unit.core.hub_bench import HubBench

OPTIONS = options()
X = BlobId(b"x" * 16)


def submit(*numbers: int, blobs: tuple[BlobId, ...] = (), engines: tuple[int, ...] = ()) -> m.Submit:
    return m.Submit(
        OPTIONS, [m.Call(number, b"p", blobs, tuple(map(EngineId, engines))) for number in numbers]
    )


def test_a_welcome_says_what_there_is() -> None:
    bench = HubBench()
    engine = bench.engine()
    (welcome,) = bench.heard(bench.client())
    assert isinstance(welcome, m.ClientWelcome)
    assert (welcome.controller, welcome.cluster, welcome.first_delivery) == ("key", "test", 0)
    assert [info.engine for info in welcome.engines] == [engine[1]]
    assert welcome.accepted == [(0, 0)]


def test_what_is_remembered_says_which_tasks_are_one_call() -> None:
    bench = HubBench()
    client = bench.client()
    bench.put(client)
    engines = (EngineId(0), EngineId(1))
    calls = [m.Call(1, b"", (), engines), m.Call(3, b""), m.Call(4, b"", first=3), m.Call(5, b"", first=3)]
    bench.say(client, m.Submit(options(), calls))
    bench.commit()
    rows = bench.store.find([task_id(number) for number in range(1, 6)])
    assert [row.first for row in rows] == [task_id(number) for number in (1, 1, 3, 3, 3)]


def test_accepted_is_said_after_the_commit_for_what_has_not_ended() -> None:
    bench = HubBench()
    client, engine = bench.client(), bench.engine()
    bench.put(client)
    bench.say(client, submit(1, 2, 3, 5))
    assert "Accepted" not in bench.heard_names(client)
    bench.say(engine, m.Results(0, [result(1)]))
    bench.heard(client)
    bench.commit()
    assert bench.heard(client) == [m.Accepted([(2, 3), (5, 5)])]
    welcome, *_ = bench.heard(bench.client())
    assert isinstance(welcome, m.ClientWelcome)
    assert welcome.accepted == [(0, 3), (5, 5)]


def test_facts_for_the_store_are_in_the_order_in_which_they_became_true() -> None:
    bench = HubBench()
    client, engine = bench.client(), bench.engine()
    bench.put(client)
    bench.say(client, submit(1))
    bench.hub.settle(now=bench.now)
    bench.say(engine, m.Results(0, [result(1)]))
    bench.say(client, m.Received(0))
    bench.hub.settle(now=bench.now)
    bench.say(client, m.Received(1))
    kinds = [type(fact) for fact in bench.commit()]
    assert kinds == [
        h.ClientSeen, h.EngineJoined, h.BlobKept, h.TaskAccepted, h.TaskEnded, h.TaskDelivered,
    ]  # fmt: skip


def test_a_call_that_comes_again_is_taken_once() -> None:
    bench = HubBench()
    client = bench.client()
    bench.put(client)
    bench.say(client, submit(1, engines=(0, 1)), submit(1, engines=(0, 1)), submit(2))
    assert bench.hub.state.scheduler.statistics().submitted == 2


def test_a_number_that_belongs_to_another_client_is_not_taken() -> None:
    bench = HubBench()
    client = bench.client()
    bench.put(client)
    bench.say(client, submit((1 << 32) - 1, engines=(0, 1)), submit(1 << 32), submit(0), submit(-1))
    assert bench.hub.state.scheduler.statistics().submitted == 0


def test_a_call_whose_blobs_are_not_here_is_asked_for_again() -> None:
    bench = HubBench()
    client = bench.client()
    bench.heard(client)
    bench.say(client, submit(1, blobs=(X,)), submit(2))
    assert bench.heard(client) == [m.Resend([1], sorted([F, X])), m.Resend([2], [F])]
    bench.put(client)
    bench.put(client, X, b"data", keep=False)
    bench.say(client, submit(1, blobs=(X,)), submit(2))
    assert bench.heard(client) == []
    assert bench.hub.state.scheduler.statistics().submitted == 2


def test_a_call_that_depends_on_one_that_comes_again_comes_again_behind_it() -> None:
    bench = HubBench()
    client = bench.client()
    bench.put(client)
    bench.heard(client)
    dependent = m.Submit(options(after=on(1)), [m.Call(2, b"p")])
    behind = m.Submit(options(follow=on(2, all=False)), [m.Call(3, b"p")])
    bench.say(client, submit(1, blobs=(X,)), dependent, behind)
    assert bench.heard(client) == [m.Resend([1], [X]), m.Resend([2], []), m.Resend([3], [])]
    bench.put(client, X, b"data", keep=False)
    bench.say(client, submit(1, blobs=(X,)), dependent, behind)
    assert bench.heard(client) == []
    assert bench.hub.state.scheduler.statistics().waiting == 2
    assert len(bench.hub.state.asked_again[client[1]]) == 0
    bench.say(client, m.Goodbye())
    assert bench.hub.state.asked_again == {}


def test_direct_calls_behind_one_that_comes_again_come_again_too_and_are_taken() -> None:
    bench = HubBench()
    client = bench.client()
    bench.engine("e0")
    bench.put(client)
    bench.heard(client)
    calls = submit(1, engines=(0,), blobs=(X,)), submit(2, engines=(0,)), submit(3)
    bench.say(client, *calls)
    assert bench.heard(client) == [m.Resend([1], [X]), m.Resend([2], [])], "a balanced one needs no order"
    bench.put(client, X, b"data", keep=False)
    bench.say(client, *calls)
    assert bench.heard(client) == []
    assert bench.hub.state.scheduler.statistics().submitted == 3
    assert len(bench.hub.state.asked_again[client[1]]) == 0


class Counted(int):
    """A number of a call, which counts how often it is compared."""

    comparisons = 0

    def __lt__(self, other: int) -> bool:
        Counted.comparisons += 1
        return int(self) < int(other)

    def __gt__(self, other: int) -> bool:
        Counted.comparisons += 1
        return int(self) > int(other)


def test_calls_that_come_again_are_compared_with_few_others() -> None:
    hub_bench, count = HubBench(), 500
    client = hub_bench.client()
    calls = [m.Call(Counted(number), b"", (), (EngineId(0),)) for number in range(1, count + 1)]
    hub_bench.say(client, m.Submit(OPTIONS, calls))
    assert len(hub_bench.hub.state.asked_again[client[1]]) == count
    hub_bench.put(client)
    Counted.comparisons = 0
    hub_bench.say(client, m.Submit(OPTIONS, calls))
    assert len(hub_bench.hub.state.asked_again[client[1]]) == 0
    assert Counted.comparisons <= 5 * count


def test_tasks_that_were_impossible_are_counted() -> None:
    bench = HubBench()
    client = bench.client()
    bench.put(client)
    bench.say(client, m.Submit(options(after=on(1)), [m.Call(1, b"p")]), m.AskStatus(7))
    answers = [record for record in bench.heard(client) if isinstance(record, m.StatusAnswer)]
    assert [(answer.tasks.ready, answer.tasks.impossible) for answer in answers] == [(0, 1)]


def test_the_blobs_of_a_call_that_comes_again_are_not_kept() -> None:
    bench = HubBench()
    client = bench.client()
    bench.put(client)
    bench.put(client, X, b"data", keep=False)
    bench.say(client, submit(1, blobs=(X,)), m.Abort([task_id(1)]))
    bench.hub.state.ended_blobs.clear()
    bench.put(client, X, b"data", keep=False)
    bench.say(client, submit(1, blobs=(X,)))
    assert bench.hub.state.blobs.missing([X]) == [X]


def test_anybody_may_abort_any_task() -> None:
    bench = HubBench()
    client, other = bench.client(1), bench.client(2)
    bench.put(client)
    bench.say(client, submit(1, 2))
    bench.say(other, m.Abort([task_id(1)]))
    assert list(bench.hub.state.scheduler) == [task_id(2)]
    assert "Finished" not in bench.heard_names(other)
    (finished,) = [record for record in bench.heard(client) if isinstance(record, m.Finished)]
    assert [(result.task, result.status) for result in finished.results] == [(task_id(1), m.Status.ABORTED)]


def test_results_are_kept_until_the_client_has_them() -> None:
    bench = HubBench()
    client, engine = bench.client(), bench.engine()
    bench.put(client)
    bench.say(client, submit(1, 2))
    bench.hub.settle(now=bench.now)
    bench.say(engine, m.Results(0, [result(1)]))
    bench.hub.settle(now=bench.now)
    bench.say(engine, m.Results(1, [result(2)]))
    assert [record.first for record in bench.heard(client) if isinstance(record, m.Finished)] == [0, 1]
    welcome, finished = bench.heard(bench.client(received=1))
    assert isinstance(welcome, m.ClientWelcome)
    assert welcome.first_delivery == 1
    assert isinstance(finished, m.Finished)
    assert (finished.first, [result.task for result in finished.results]) == (1, [task_id(2)])


def test_the_tasks_of_a_client_that_leaves_go_on() -> None:
    bench = HubBench()
    client, engine = bench.client(), bench.engine()
    bench.put(client)
    bench.say(client, submit(1))
    bench.say(client, m.Goodbye())
    assert not bench.hub.knows(client)
    bench.hub.settle(now=bench.now)
    bench.put(engine, X, b"value", keep=False)
    answer = result(1)
    answer.blobs = (X,)
    bench.say(engine, m.Results(0, [answer]))
    assert bench.hub.state.scheduler.statistics().done == 1
    assert bench.hub.state.blobs.missing([X]) == [], "others may ask for it"
    bench.hub.state.ended_blobs.clear()
    assert bench.hub.state.blobs.missing([X]) == [X]


def test_what_a_client_still_says_after_its_goodbye_changes_nothing() -> None:
    bench = HubBench()
    client = bench.client()
    bench.say(client, m.Goodbye(), m.Received(5), submit(1), m.Ping(), m.Goodbye())
    assert bench.hub.state.scheduler.statistics().submitted == 0


def test_a_client_that_was_given_up_is_refused_and_its_tasks_go_on() -> None:
    bench = HubBench()
    client = bench.client()
    bench.put(client)
    bench.say(client, submit(1, 2))
    bench.lose(client)
    bench.wait(CLIENT_GRACE_S)
    assert ClientId(1) not in bench.hub.state.registry.clients
    hello = m.ClientHello(ClientId(1), b"s", m.Versions("1", (3, 11)), 1)
    assert "it was given up; its tasks have gone on" in bench.refused(hello)
    assert len(list(bench.hub.state.scheduler)) == 2


def test_another_secret_is_refused() -> None:
    bench = HubBench()
    bench.client()
    hello = m.ClientHello(ClientId(1), b"x", m.Versions("1", (3, 11)), 1)
    assert bench.refused(hello) == "another client has registered under this id"


def test_a_hello_in_mid_batch_means_nothing() -> None:
    bench = HubBench()
    client = bench.client()
    bench.say(client, m.ClientHello(ClientId(1), b"s", m.Versions("1", (3, 11)), 1))
    assert bench.hub.knows(client)


# ---------------------------------------------------------------- orders


def test_engines_are_started_by_a_host() -> None:
    bench = HubBench()
    client, host = bench.client(), bench.host()
    bench.heard(client)
    bench.heard(host)
    for request in (5, 6):
        bench.say(client, m.StartEngines(request, 2))
    first, second = (record for record in bench.heard(host) if isinstance(record, m.LaunchEngines))
    assert (first.wanted, second.wanted) == ([0, 1], [2, 3])
    answers = []
    for launch in (second, first, first):  # an answer that is said again answers nothing else
        processes = [m.ProcessInfo("k", 1, wanted) for wanted in launch.wanted]  # type: ignore[arg-type]
        bench.say(host, m.EnginesStarted(launch.request, processes))
        answers += bench.heard(client)
    assert answers == [
        m.Answer(6, "", [EngineId(2), EngineId(3)]),
        m.Answer(5, "", [EngineId(0), EngineId(1)]),
    ]
    bench.say(client, m.StartEngines(7, 1))
    (third,) = bench.heard(host)
    assert isinstance(third, m.LaunchEngines)
    assert third.request not in (first.request, second.request)


def test_an_order_whose_host_leaves_is_answered() -> None:
    bench = HubBench()
    client, host = bench.client(), bench.host()
    bench.heard(client)
    bench.say(client, m.StartEngines(5, 1))
    bench.say(host, m.Goodbye())
    assert bench.heard(client) == [m.Answer(5, "the host that was to start them has left")]


def test_an_order_without_a_host_is_refused_after_a_while() -> None:
    bench = HubBench()
    client = bench.client()
    bench.heard(client)
    bench.say(client, m.StartEngines(5, 1))
    bench.wait(10.0)
    (answer,) = [record for record in bench.heard(client) if isinstance(record, m.Answer)]
    assert (answer.request, answer.engines) == (5, [])
    assert "no host of this cluster can start engines" in answer.error


def test_engines_are_stopped_by_their_host_or_told_themselves() -> None:
    bench = HubBench()
    client, host = bench.client(), bench.host()
    hosted, alone = bench.engine("e0", host="h0"), bench.engine("e1")
    control = bench.control("e1")
    for peer in (client, host, hosted, alone, control):
        bench.heard(peer)
    bench.say(client, m.StopEngines(3, [EngineId(0), EngineId(9)]))
    (refused,) = bench.heard(client)
    assert isinstance(refused, m.Answer)
    assert refused.error == "there is no engine 9; the engines are: 0, 1"
    bench.say(client, m.StopEngines(4, []))
    assert bench.heard(host) == [m.StopProcesses(["e0"])]  # type: ignore[list-item]
    assert bench.heard(control) == [m.StopEngine()]
    assert bench.heard(client) == [m.Answer(4)]


def test_signals_wait_for_a_host_that_is_on_its_way() -> None:
    bench = HubBench()
    client = bench.client()
    bench.engine("e0", host="h0")
    bench.heard(client)
    bench.say(client, m.SignalEngines(3, [EngineId(0)], 2))
    assert bench.heard(client) == [m.Answer(3)]
    host = bench.host()
    assert m.SignalProcesses(["e0"], 2) in bench.heard(host)  # type: ignore[list-item]
    assert not bench.hub.state.signals


def test_signals_need_a_host() -> None:
    bench = HubBench()
    client, host = bench.client(), bench.host()
    bench.engine("e0", host="h0")
    bench.engine("e1")
    bench.heard(client)
    bench.heard(host)
    bench.say(client, m.SignalEngines(3, [EngineId(0)], 2))
    assert bench.heard(host) == [m.SignalProcesses(["e0"], 2)]  # type: ignore[list-item]
    bench.say(client, m.SignalEngines(4, [EngineId(1)], 2))
    ours, theirs = bench.heard(client)
    assert ours == m.Answer(3)
    assert isinstance(theirs, m.Answer)
    assert theirs.error == "some engines have no supervisor that could send them a signal"


def test_shutting_down_tells_everybody() -> None:
    bench = HubBench()
    client, host = bench.client(), bench.host()
    bench.engine("e0", host="h0")
    bench.engine("e1")
    control = bench.control("e1")
    for peer in (client, host, control):
        bench.heard(peer)
    assert not bench.hub.is_finished(now=bench.now)
    bench.say(client, m.ShutDown(9))
    assert bench.heard(host) == [m.StopProcesses([])]
    assert bench.heard(control) == [m.StopEngine()]
    assert bench.heard(client) == [m.Answer(9), m.Goodbye()]
    late = bench.host("h1")
    assert bench.heard_names(late) == ["HostWelcome", "StopProcesses"]
    assert HostKey("h1") in bench.hub.state.registry.hosts


def test_an_order_that_is_repeated_after_a_hello_is_carried_out_once() -> None:
    bench = HubBench()
    client, host = bench.client(), bench.host()
    bench.heard(host)
    bench.say(client, m.StartEngines(1, 2))
    (launch,) = bench.heard(host)
    assert isinstance(launch, m.LaunchEngines)
    bench.client()  # the answer to come is to a connection that has ended
    bench.heard(client)
    bench.say(client, m.StartEngines(1, 2))
    assert bench.heard(host) == []
    assert bench.heard(client) == []
    bench.say(host, m.EnginesStarted(launch.request, []))
    (answer,) = bench.heard(client)
    assert answer == m.Answer(1)
    bench.client()  # and this answer was lost
    bench.heard(client)
    bench.say(client, m.StartEngines(1, 2))
    assert bench.heard(client) == [answer]
    assert bench.heard(host) == []
    bench.say(client, m.StartEngines(2, 1))
    assert [type(record) for record in bench.heard(host)] == [m.LaunchEngines]


def test_the_answers_of_the_last_orders_are_kept() -> None:
    bench = HubBench()
    client = bench.client()
    for number in range(ANSWERS_KEPT + 1):
        bench.say(client, m.StopEngines(number, [EngineId(9)]))
    bench.heard(client)
    kept = bench.hub.state.given_orders
    assert kept.answer(ClientId(1), 0) is None
    assert kept.answer(ClientId(1), 1) is not None
    bench.say(client, m.Goodbye())
    assert kept.answer(ClientId(1), 1) is None


def test_what_cannot_be_sent_is_answered_for() -> None:
    bench = HubBench()
    client, engine = bench.client(), bench.engine()
    bench.put(client)
    bench.say(client, submit(1))
    bench.heard(client)
    (run,) = [record for record in bench.heard(engine) if isinstance(record, m.Run)]
    tell = bench.hub.on_unsendable
    tell(client, m.StatusAnswer(7, "test", 0.0, 1, 0, m.TaskCounts(*[0] * 9)), "too large", now=bench.now)
    assert bench.heard(client) == [m.Answer(7, "too large")]
    results = [m.TaskResult(TaskId(1), m.Status.OK), m.TaskResult(TaskId(2), m.Status.OK)]
    tell(client, m.Finished(5, results), "too large", now=bench.now)
    assert bench.heard(client) == [m.Finished(5, results[:1]), m.Finished(6, results[1:])]
    tell(client, m.Finished(6, results[1:]), "too large", now=bench.now)
    assert bench.heard(client) == [
        m.Finished(6, [m.TaskResult(TaskId(2), m.Status.DROPPED, detail="too large")])
    ]
    tell(engine, run, "too large", now=bench.now)
    (finished,) = bench.heard(client)
    assert isinstance(finished, m.Finished)
    assert [(result.status, result.detail) for result in finished.results] == [
        (m.Status.REFUSED, "too large")
    ]
