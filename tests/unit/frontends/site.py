"""A shell of IPython's with a client whose engines do as the test says."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from IPython.core.displaypub import DisplayPublisher

from enginery.client.client import Client
from enginery.ids import EngineId, TaskId
from enginery.objects.failures import pack_failure
from enginery.objects.packing import pack
from enginery.protocol.messages import Status, TaskResult
from tests.unit.client.fake_session import FakeSession

ENGINES = 3


class TickingSession(FakeSession):
    """Of what happens while somebody waits, one thing happens in each wait that has an end."""

    def wait_until(self, predicate: Callable[[], bool], timeout_s: float | None = None) -> bool:
        if self.later and timeout_s is not None and timeout_s > 0:
            self.later.popleft()()
            return predicate()
        return super().wait_until(predicate, timeout_s)


class KernelPublisher(DisplayPublisher):
    """Takes displays as a kernel does, which keeps them by their ids; prints new ones as text."""

    def __init__(self, shell: Any) -> None:
        super().__init__(parent=shell)
        self.shell = shell
        self.shown: dict[str, list[dict[str, Any]]] = {}

    def publish(self, data: Any, metadata: Any = None, *, update: bool = False, **rest: Any) -> None:
        display_id = (rest.get("transient") or {}).get("display_id", "")
        if update:
            assert display_id in self.shown, "nothing of this id is shown"
        else:
            sys.stdout.write(f"{data.get('text/plain', '')}\n")
        self.shown.setdefault(display_id, []).append(data)

    def texts(self) -> list[list[str]]:
        """What was shown in each place that can change, one after the other."""
        return [[data["text/plain"] for data in shown] for place, shown in self.shown.items() if place]


class Site:
    def __init__(self, shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self.shell = shell
        self._capsys = capsys
        self.session = TickingSession(range(ENGINES))
        self.rc = Client.over(self.session)
        self._next = 1

    def expect(
        self,
        *engines: int,
        stdout: str = "",
        stderr: str = "",
        value: str | None = None,
        data: Mapping[str, Any] | None = None,
        count: int = 1,
        error: Exception | None = None,
    ) -> None:
        """Say how the next tasks end, one for each of these engines."""
        data = data or ({} if value is None else {"text/plain": value})
        for engine in engines:
            if error is not None:
                status, packed = Status.ERROR, pack_failure(error, engine=engine)
            else:
                status = Status.OK
                packed = pack({"execution_count": count, "data": dict(data), "metadata": {}})
            self.session.verdicts[self._next] = TaskResult(
                TaskId(0), status, packed.inline, engine=EngineId(engine), stdout=stdout, stderr=stderr
            )
            self._next += 1

    def be_a_kernel(self) -> KernelPublisher:
        """Have the shell show displays as a notebook does, from now on."""
        publisher = KernelPublisher(self.shell)
        self.shell.display_pub = publisher
        return publisher

    def run(self, cell: str) -> str:
        """Run a cell; what it wrote to standard output."""
        self.result = self.shell.run_cell(cell, store_history=True)
        out, self.err = self._capsys.readouterr()
        return out

    @property
    def sent(self) -> list[tuple[int, ...]]:
        """The engines of each call."""
        return [tuple(map(int, submission.engines)) for submission in self.session.submissions]
