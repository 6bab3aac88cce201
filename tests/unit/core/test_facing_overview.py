"""The cluster at a glance, and the controller's word on why tasks are where they are."""

from __future__ import annotations

from enginery.core import facing_overview
from enginery.core.state import FAILURES_KEPT, HOST_WAIT_S, Identity
from enginery.ids import EngineId, EngineKey, HostKey
from enginery.protocol import messages as m
from tests.unit.core.builders import result, task_id
from tests.unit.core.hub_bench import HubBench
from tests.unit.core.test_facing_clients import submit


def heard_status(bench: HubBench, client: Identity) -> list[m.StatusAnswer]:
    return [record for record in bench.heard(client) if isinstance(record, m.StatusAnswer)]


def test_numbers_are_said_at_once() -> None:
    bench = HubBench()
    client = bench.client()
    bench.host()
    bench.engine(host="h0")
    bench.put(client)
    bench.say(client, submit(1, 2))
    bench.hub.settle(now=bench.now)
    bench.now += 3.0
    bench.say(client, m.AskStatus(7))
    (status,) = heard_status(bench, client)
    assert (status.request, status.uptime_s, status.clients, status.engine_count) == (7, 3.0, 1, 1)
    assert (status.tasks.submitted, status.tasks.ready, status.tasks.sent) == (2, 1, 1)
    assert (status.engines, status.hosts, status.is_last) == ([], [], True)


def test_the_whole_without_hosts() -> None:
    bench = HubBench()
    client = bench.client()
    bench.engine("e0")
    bench.lose(bench.engine("e1"))
    bench.put(client)
    bench.say(client, submit(1, 2), submit(3, engines=(1,)))
    bench.hub.settle(now=bench.now)
    bench.now += 3.0
    bench.say(client, m.AskStatus(7, whole=True))
    (status,) = heard_status(bench, client)
    assert [(e.engine, e.state, e.queue, e.in_flight, e.task, e.running_s) for e in status.engines] == [
        (0, "busy", 0, 1, task_id(1), 3.0),
        (1, "disconnected", 1, 0, 0, 0.0),
    ]
    assert all(engine.resident < 0 for engine in status.engines)


def test_without_hosts_the_engines_are_said_at_once() -> None:
    bench = HubBench()
    client, host = bench.client(), bench.host()
    bench.engine(host="h0")
    bench.say(client, m.AskStatus(7, whole=True, ask_hosts=False))
    (status,) = heard_status(bench, client)
    assert [(engine.engine, engine.state) for engine in status.engines] == [(0, "idle")]
    assert bench.heard_names(host) == ["HostWelcome"]


def test_the_whole_has_what_hosts_say() -> None:
    bench = HubBench()
    client, host = bench.client(), bench.host()
    bench.engine(host="h0")
    bench.say(client, m.AskStatus(7, whole=True))
    assert heard_status(bench, client) == []
    (question,) = [record for record in bench.heard(host) if isinstance(record, m.ReportUse)]
    use = m.ProcessUse(EngineKey("e0"), 1000, 2.5)
    bench.say(host, m.HostUse(question.order, [use], 4, 0.5, 10_000))
    (status,) = heard_status(bench, client)
    assert [(engine.resident, engine.cpu_s) for engine in status.engines] == [(1000, 2.5)]
    assert status.hosts == [m.HostStatus(HostKey("h0"), "host", 1, 1, 4, 0.5, 10_000)]
    bench.say(host, m.HostUse(question.order, [use], 4, 0.5, 10_000))  # said again after a hello
    assert heard_status(bench, client) == []


def test_a_host_that_returns_hears_the_question_again() -> None:
    bench = HubBench()
    client = bench.client()
    bench.say(client, m.AskStatus(7, whole=True))
    bench.heard(client)
    bench.host()
    bench.say(client, m.AskStatus(8, whole=True))
    bench.lose(("host", "h0"))
    assert "ReportUse" in bench.heard_names(bench.host())


def test_a_silent_host_is_not_waited_for() -> None:
    bench = HubBench()
    client, host = bench.client(), bench.host()
    bench.engine(host="h0")
    bench.say(client, m.AskStatus(7, whole=True))
    bench.heard(host)
    bench.wait(HOST_WAIT_S)
    (status,) = heard_status(bench, client)
    assert [(each.engines, each.cores) for each in status.hosts] == [(1, 0)]


def test_a_host_that_leaves_is_not_waited_for() -> None:
    bench = HubBench()
    client, host = bench.client(), bench.host()
    bench.say(client, m.AskStatus(7, whole=True))
    bench.say(host, m.Goodbye())
    (status,) = heard_status(bench, client)
    assert status.hosts == []


def test_many_engines_come_in_pages() -> None:
    bench = HubBench()
    client = bench.client()
    for number in range(facing_overview.PAGE_ENGINES + 2):
        bench.engine(f"e{number}")
    bench.heard(client)
    bench.say(client, m.AskStatus(7, whole=True))
    pages = heard_status(bench, client)
    assert [(len(page.engines), page.is_last) for page in pages] == [
        (facing_overview.PAGE_ENGINES, False),
        (2, True),
    ]


def test_the_last_failures_are_named() -> None:
    bench = HubBench()
    client, engine = bench.client(), bench.engine()
    bench.put(client)
    count = FAILURES_KEPT + 3
    bench.say(client, submit(*range(1, count + 2)))
    for number in range(1, count + 2):
        bench.hub.settle(now=bench.now)
        status = m.Status.OK if number == 1 else m.Status.ERROR
        bench.say(engine, m.Results(number - 1, [result(number, 1, status, error=f"ValueError: {number}")]))
    bench.say(client, m.AskStatus(7, whole=True))
    (answer,) = heard_status(bench, client)
    assert [note.task for note in answer.failures] == [task_id(n) for n in range(5, count + 2)]
    assert (answer.failures[0].error, answer.failures[0].engine) == ("ValueError: 5", EngineId(0))


def test_reasons() -> None:
    bench = HubBench()
    client = bench.client()
    bench.put(client)
    bench.say(client, submit(1, 2))
    bench.heard(client)
    bench.say(client, m.AskReasons(7, [task_id(1), task_id(2), task_id(3)]))
    (answer,) = [record for record in bench.heard(client) if isinstance(record, m.ReasonsAnswer)]
    (reason,) = answer.reasons
    assert (reason.tasks, reason.first, reason.state) == (2, task_id(1), "ready")


def test_too_many_reasons_are_summed_up() -> None:
    bench = HubBench()
    client = bench.client()
    bench.put(client)
    count = facing_overview.REASONS_SAID + 5
    for number in range(count):
        bench.engine(f"e{number}")
        bench.lose(("engine", EngineId(number)))
        bench.say(client, submit(number + 1, engines=(number,)))
    bench.heard(client)
    bench.say(client, m.AskReasons(7, [task_id(number + 1) for number in range(count)]))
    (answer,) = [record for record in bench.heard(client) if isinstance(record, m.ReasonsAnswer)]
    assert len(answer.reasons) == facing_overview.REASONS_SAID + 1
    assert sum(reason.tasks for reason in answer.reasons) == count
