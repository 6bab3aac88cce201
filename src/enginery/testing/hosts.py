"""A host without processes: like a supervisor it reports deaths, and reports them again after each hello."""

from __future__ import annotations

from collections.abc import Callable

from enginery.ids import EngineId, EngineKey, HostKey, TaskId
from enginery.protocol import codec
from enginery.protocol.codec import Buffer
from enginery.protocol.messages import (
    EngineExited,
    EnginesStarted,
    Goodbye,
    HostHello,
    HostWelcome,
    KillProcess,
    LaunchEngines,
    ProcessInfo,
    StopProcesses,
    ToHost,
)
from enginery.testing.clock import VirtualClock
from enginery.testing.conversation import Conversation
from enginery.testing.network import VirtualNetwork
from enginery.transport.channel import Role


class ScriptedHost:
    """One supervisor. `launch` makes an engine of a wanted id, `stop` ends engines (no keys: all of them).

    `kill` ends one at once if it runs a task.
    """

    def __init__(
        self,
        name: str,
        network: VirtualNetwork,
        clock: VirtualClock,
        *,
        key: HostKey,
        launch: Callable[[EngineId], EngineKey],
        stop: Callable[[list[EngineKey]], None],
        kill: Callable[[EngineKey, TaskId], None],
    ) -> None:
        self.name = name
        self.key = key
        self.is_alive = True
        self._launch = launch
        self._stop = stop
        self._kill = kill
        self._reports: list[EngineExited | EnginesStarted] = []
        self.conversation: Conversation[ToHost] = Conversation(
            network.dial(Role.HOST, name), clock, codec.to_host(), self._hello
        )
        self.conversation.begin()

    def __repr__(self) -> str:
        return f"<ScriptedHost {self.name}, {len(self._reports)} reports>"

    def report_exit(
        self, key: EngineKey, cause: str, started: list[TaskId] | None, *, expected: bool = False
    ) -> None:
        """Say that an engine has ended. `started` is what its status page shows, None = unreadable."""
        self._report(EngineExited(key, 4711, cause, started or [], started is not None, expected))

    def say_goodbye(self) -> None:
        """End it on purpose."""
        if self.conversation.is_bound:
            self.conversation.link.put(Goodbye())
            self.conversation.send()
        self.kill()

    def kill(self) -> None:
        self.is_alive = False
        self.conversation.close(linger_s=0.5)

    def next_deadline(self) -> float | None:
        return self.conversation.next_deadline() if self.is_alive else None

    def turn(self) -> bool:
        """Do what there is to do now; False if there was nothing."""
        if not self.is_alive:
            return False
        active = self.conversation.is_due()
        if active:
            for record, frame in self.conversation.receive():
                self._on_record(record, frame)
            self.conversation.keep_in_touch()
        return self.conversation.send() or active

    def _on_record(self, record: ToHost, frame: Buffer | None = None) -> None:
        if isinstance(record, HostWelcome):
            for report in self._reports:
                self.conversation.link.put(report)
        elif isinstance(record, LaunchEngines):
            processes = [ProcessInfo(self._launch(wanted), 4711, wanted) for wanted in record.wanted]
            self._report(EnginesStarted(record.request, processes))
        elif isinstance(record, StopProcesses):
            self._stop(record.keys)
        elif isinstance(record, KillProcess):
            self._kill(record.key, record.running)

    def _report(self, report: EngineExited | EnginesStarted) -> None:
        self._reports.append(report)
        if self.conversation.is_bound:
            self.conversation.link.put(report)

    def _hello(self) -> HostHello:
        return HostHello(self.key, b"secret", "host", 4713, [])
