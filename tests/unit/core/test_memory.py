"""Questions about memory: to the engines, and answered in pages of bounded size."""

from __future__ import annotations

from typing import Any

from enginery.core.memory import PAGE_BYTES, Question, pages
from enginery.ids import ClientId, EngineId
from enginery.protocol import messages as m
from enginery.protocol.messages import MemoryUse, NamedObject
from tests.unit.core.builders import result
from tests.unit.core.hub_bench import HubBench
from tests.unit.core.test_facing_clients import submit

CLIENT = ClientId(1)
ZERO, ONE = EngineId(0), EngineId(1)


def test_who_is_silent_is_named() -> None:
    ((page, _),) = pages(Question(CLIENT, 1, False, {ZERO: MemoryUse()}, {ONE}, 0.0), MemoryUse(5))
    assert ([each.engine for each in page.engines], page.silent, page.is_last) == ([ZERO], [ONE], True)
    assert page.controller == MemoryUse(5)


def test_long_answers_come_in_pages() -> None:
    objects = [NamedObject("name", "kind", 1)] * 10
    uses = {EngineId(number): MemoryUse(objects=objects) for number in range(300)}
    found = list(pages(Question(CLIENT, 3, False, uses, set(), 0.0), MemoryUse()))
    assert len(found) > 1
    assert [page.is_last for page, _ in found] == [False] * (len(found) - 1) + [True]
    assert [each.engine for page, _ in found for each in page.engines] == sorted(uses)
    assert all(size_bytes <= PAGE_BYTES for _, size_bytes in found)
    assert [page.controller is not None for page, _ in found] == [page.is_last for page, _ in found]


# ---------------------------------------------------------------- at the controller


def heard_memory(bench: HubBench, client: Any) -> list[m.MemoryAnswer]:
    return [record for record in bench.heard(client) if isinstance(record, m.MemoryAnswer)]


def test_the_controller_asks_its_engines_and_adds_itself() -> None:
    bench = HubBench()
    client, engine, control = bench.client(), bench.engine("e0"), bench.control("e0")
    bench.put(client)
    for peer in (client, engine, control):
        bench.heard(peer)
    bench.say(client, m.AskMemory(5, []))
    (asked,) = bench.heard(control)
    assert asked == m.ReportMemory(1, False)
    assert heard_memory(bench, client) == []
    bench.say(control, m.EngineMemory(1, MemoryUse(7)))
    (answer,) = heard_memory(bench, client)
    assert answer.engines == [m.EngineMemoryUse(ZERO, MemoryUse(7))]
    assert answer.controller is not None
    assert answer.controller.blobs > 0


def test_freed_blobs_are_sent_again() -> None:
    bench = HubBench()
    client, engine, control = bench.client(), bench.engine("e0"), bench.control("e0")
    bench.put(client)
    bench.say(client, submit(1))
    assert "PutBlob" in bench.heard_names(engine)
    bench.heard(control)
    bench.say(client, m.AskMemory(5, [ZERO], free=True))
    (asked,) = bench.heard(control)
    assert asked == m.ReportMemory(1, True)
    bench.say(control, m.EngineMemory(1, MemoryUse(), freed=True))
    bench.say(engine, m.Results(0, [result(1)]))
    bench.say(client, submit(2))
    assert bench.heard_names(engine) == ["PutBlob", "Run"]


def test_unknown_engines_and_no_engines() -> None:
    bench = HubBench()
    client = bench.client()
    bench.heard(client)
    bench.say(client, m.AskMemory(5, [ONE]), m.AskMemory(6, []))
    refused, empty = heard_memory(bench, client)
    assert refused.error == "there is no engine 1; the engines are: none"
    assert (empty.request, empty.engines, empty.is_last) == (6, [], True)


def test_a_control_connection_that_comes_back_is_asked_again() -> None:
    bench = HubBench()
    client, _, control = bench.client(), bench.engine("e0"), bench.control("e0")
    bench.say(client, m.AskMemory(5, []))
    bench.heard(control)
    again = bench.control("e0")
    assert m.ReportMemory(1, False) in bench.heard(again)
