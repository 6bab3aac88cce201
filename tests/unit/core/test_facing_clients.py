"""What clients say to the controller, and what they hear."""

from __future__ import annotations

from enginery.core.facing_clients import CLIENT_GRACE_S
from enginery.ids import BlobId, ClientId, EngineId, HostKey
from enginery.protocol import history as h
from enginery.protocol import messages as m
from tests.unit.core.builders import F, options, result, task_id
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


def test_the_blobs_of_a_call_that_comes_again_are_not_kept() -> None:
    bench = HubBench()
    client = bench.client()
    bench.put(client)
    bench.put(client, X, b"data", keep=False)
    bench.say(client, submit(1, blobs=(X,)), m.Abort([task_id(1)]))
    bench.put(client, X, b"data", keep=False)
    bench.say(client, submit(1, blobs=(X,)))
    assert bench.hub.state.blobs.missing([X]) == [X]


def test_only_ones_own_tasks_can_be_aborted() -> None:
    bench = HubBench()
    client, other = bench.client(1), bench.client(2)
    bench.put(client)
    bench.say(client, submit(1))
    bench.say(other, m.Abort([task_id(1)]))
    assert bench.hub.state.scheduler.unfinished_count == 1
    bench.say(client, m.Abort([task_id(1)]))
    bench.heard(other)
    (finished,) = [record for record in bench.heard(client) if isinstance(record, m.Finished)]
    assert [result.status for result in finished.results] == [m.Status.ABORTED]


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
    assert bench.hub.state.blobs.missing([X]) == [X], "nobody will ever ask for it here"


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
    assert bench.hub.state.scheduler.unfinished_count == 2


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


def test_status() -> None:
    bench = HubBench()
    client = bench.client()
    bench.engine("e0")
    bench.lose(bench.engine("e1"))
    bench.put(client)
    bench.say(client, submit(1, 2), submit(3, engines=(1,)))
    bench.hub.settle(now=bench.now)
    bench.now += 3.0
    bench.say(client, m.AskStatus(7))
    (status,) = [record for record in bench.heard(client) if isinstance(record, m.StatusAnswer)]
    assert (status.request, status.uptime_s, status.clients) == (7, 3.0, 1)
    assert (status.ready, status.sent) == (1, 1)
    assert [(e.engine, e.state, e.direct_queue, e.in_flight, e.running) for e in status.engines] == [
        (0, "ready", 0, 1, task_id(1)),
        (1, "disconnected", 1, 0, 0),
    ]


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
    bench.say(client, m.StopEngines(3, []))
    assert bench.heard(host) == [m.StopProcesses(["e0"])]  # type: ignore[list-item]
    assert bench.heard(control) == [m.StopEngine()]
    assert bench.heard(client) == [m.Answer(3)]


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
