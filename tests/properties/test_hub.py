"""Any record that a role may say, at any time, leaves the hub whole: peers may be wrong, or hostile."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from enginery.core.hub import DOORS
from enginery.core.state import Identity
from enginery.protocol import messages as m
from enginery.protocol.link import FRAME_LIMIT, Link
from tests.unit.core.builders import F
from tests.unit.core.hub_bench import VERSIONS, HubBench
from tests.unit.protocol.records import of_struct

HELLOS = (m.ClientHello, m.EngineHello, m.ControlHello, m.HostHello)


def with_versions(hello: Any) -> Any:
    """One that is not refused for its versions."""
    if hasattr(hello, "versions"):
        hello.versions = VERSIONS
    return hello


hellos = st.one_of([of_struct(hello) for hello in HELLOS]).map(with_versions)
said = {kind: st.one_of([of_struct(record) for record in doors]) for kind, doors in DOORS.items()}
record_steps = st.sampled_from(sorted(said)).flatmap(lambda kind: st.tuples(st.just(kind), said[kind]))
steps = st.one_of(
    record_steps,
    record_steps,
    record_steps,
    st.tuples(st.just("hello"), hellos),
    st.tuples(st.just("piece"), of_struct(m.PutBlob)),
    st.tuples(st.just("lose"), st.integers(0, 3)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 1.0, 70.0, 700.0])),
    st.tuples(st.just("return"), st.integers(0, 3)),
)


def drain(bench: HubBench) -> None:
    """Take what is on every link: it must be fit to be sent."""
    for identity in bench.hub.settle(now=bench.now):
        link = bench.hub.state.links.get(identity)
        while link is not None and (message := link.next_message()) is not None:
            assert len(message[0]) <= FRAME_LIMIT
            link._acknowledged = link._sent
    bench.hub.check()


@settings(max_examples=100)
@given(st.lists(steps, max_size=25))
def test_no_record_breaks_the_hub(plan: list[tuple[str, Any]]) -> None:
    bench = HubBench()

    def come() -> list[Identity]:
        return [bench.client(), bench.engine(), bench.control(), bench.host()]

    peers = come()
    bench.put(peers[0], F)
    kinds = {identity[0]: identity for identity in peers}
    for kind, what in plan:
        if kind == "hello":
            bench.hub.on_hello(what, Link(), now=bench.now)
        elif kind == "piece":
            what.size_bytes, what.offset = 4, 0
            bench.hub.on_record(peers[0], what, b"data", now=bench.now)
        elif kind == "lose":
            bench.hub.on_disconnected(peers[what], now=bench.now)
        elif kind == "wait":
            bench.wait(what)
        elif kind == "return":
            bench.hub.on_hello(
                [
                    m.ClientHello(peers[0][1], b"s", VERSIONS, 1),
                    m.EngineHello("e0", b"s", VERSIONS, "h", "", 1, -1, [], 0),
                    m.ControlHello("e0", b"s"),
                    m.HostHello("h0", b"s", "h", 1, []),
                ][what],
                Link(),
                now=bench.now,
            )  # fmt: skip
        else:
            bench.hub.on_record(kinds[kind], what, None, now=bench.now)
        bench.hub.check()
        drain(bench)
        bench.commit()
