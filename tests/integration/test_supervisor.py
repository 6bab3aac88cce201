"""A supervisor whose controller is away."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path

import pytest

from enginery.host.orders import EndedEngine, Inheritance
from enginery.host.supervisor import REPORTS_KEPT, Supervisor, first_engines
from enginery.ids import EngineId, EngineKey, HostKey
from enginery.protocol.messages import EngineExited
from enginery.protocol.specs import HostSpec

KEY = HostKey("0123456789abcdef")


def ended(key: EngineKey) -> EngineExited:
    return EngineExited(key, 77, "killed by SIGKILL (signal 9)", [], proof=False, expected=False)


@pytest.mark.parametrize("count", [2, REPORTS_KEPT + 50])
def test_the_end_of_every_engine_is_kept_until_it_can_be_said(tmp_path: Path, count: int) -> None:
    spec = HostSpec(cluster="c", directory=str(tmp_path), engines=count)
    engines = first_engines(spec, KEY)
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        inheritance = Inheritance(engines, [], [], 0)
        supervisor = Supervisor(spec, host_key=KEY, secret=b"s", end=theirs, inheritance=inheritance)
        for engine in engines:
            supervisor._report(ended(engine.key))
        assert list(supervisor._reports) == [ended(engine.key) for engine in engines]
        for number in range(2 * count + REPORTS_KEPT):
            supervisor._report(ended(EngineKey(str(number))))
        assert len(supervisor._reports) == max(REPORTS_KEPT, 2 * count), "and no more than that"


def test_a_supervisor_says_again_which_engines_have_ended_before_it(tmp_path: Path) -> None:
    """The one before may have been killed with its reports."""
    spec = HostSpec(cluster="c", directory=str(tmp_path), engines=1)
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        gone = EndedEngine(EngineKey("gone"), EngineId(1), 77, -9)
        inheritance = Inheritance(first_engines(spec, KEY), [gone], [], 0)
        supervisor = Supervisor(spec, host_key=KEY, secret=b"s", end=theirs, inheritance=inheritance)
        assert list(supervisor._reports) == [ended(gone.key)]
