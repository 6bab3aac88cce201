"""Runs the transcripts of this directory: every command, and what was said after it.

A file is a list of commands, each followed by ``----`` and the transcript that is expected: one line per
message, with the virtual time at which it was sent. With ``ENGINERY_REWRITE=1`` the files are written anew;
read the difference before you commit it.

Commands (``name=value`` arguments are those of `World` and `ScriptedClient.call`):

    cluster engines=2 clients=1   begin: a host with engines, and clients; what they say is not shown
    engine | client               one more of them
    call f count=3 …              submit calls of the first client, or of client=2; after=1,2:3 names tasks
    abort 1 2                     of the first client
    cancel 1 2 [grace=0.5]        the same
    run [0.5]                     let time pass: until all calls have ended, or for so long
    kill 0 proof=yes report=0     the engine of this number; report=never if its host cannot say so
    leave engine 0 | client 1     on purpose
    cut engine 0 [away=30]        its connections get new routes; nobody is told
    forget client 1               the controller forgets its route
    forget-blobs 0                the engine forgets all blobs
    late                          the next message takes its time, and all behind it on its way
    show acknowledgements         from now on
    status                        the scheduler's counts
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enginery.ids import ClientId, TaskId, make_task_id
from enginery.protocol import codec
from enginery.protocol import messages as m
from enginery.testing import Fate, Passing
from tests.scenarios.wording import describe
from tests.world import Peer, World

FILES = sorted(Path(__file__).parent.glob("*.txt"))
ACKNOWLEDGEMENTS = (m.Accepted, m.Received, m.Stored)
DECODERS = {
    ("client", True): codec.from_client(),
    ("client", False): codec.to_client(),
    ("engine", True): codec.from_engine(),
    ("engine", False): codec.to_engine(),
    ("control", True): codec.from_control(),
    ("control", False): codec.to_control(),
    ("host", True): codec.from_host(),
    ("host", False): codec.to_host(),
}


class Stage:
    """One world, and the commands that a transcript may give."""

    def __init__(self) -> None:
        self.world = World()
        self.began_at = self.world.clock.now()
        self.hidden: tuple[type, ...] = (m.Ping, *ACKNOWLEDGEMENTS)
        self.lines: list[str] = []
        self.world.network.observers.append(self.on_message)
        self.commands: dict[str, Callable[[list[str], dict[str, str]], None]] = {
            "cluster": self.cluster,
            "engine": lambda words, options: self.join_engine(options),
            "client": lambda words, options: self.join_client(),
            "call": self.call,
            "abort": lambda words, options: self.world.clients[0].abort(map(int, words)),
            "cancel": self.cancel,
            "run": self.run,
            "kill": self.kill,
            "leave": lambda words, options: self.leave(self.peer(words)),
            "cut": lambda words, options: self.world.cut(
                self.peer(words), away_s=float(options.get("away", 0))
            ),
            "forget": lambda words, options: self.forget(self.peer(words)),
            "forget-blobs": lambda words, options: self.world.engines[int(words[0])].forget_blobs(),
            "late": lambda words, options: self.make_late(),
            "show": self.show,
            "status": lambda words, options: self.status(),
        }

    def do(self, command: str) -> list[str]:
        """Run one command; returns its transcript."""
        name, *arguments = command.split()
        words = [word for word in arguments if "=" not in word]
        options = dict(word.split("=", 1) for word in arguments if "=" in word)
        self.commands[name](words, options)
        lines, self.lines = self.lines, []
        return lines

    def on_message(self, passing: Passing) -> None:
        name = passing.channel.name
        kind = "control" if name.endswith(".control") else name.rstrip("0123456789")
        envelope = DECODERS[kind, passing.upwards].decode(passing.header, passing.frames)
        words = [describe(record) for record in envelope.records if not isinstance(record, self.hidden)]
        if words:
            arrow = f"{name} >" if passing.upwards else f"> {name}"
            at = passing.at - self.began_at
            self.lines.append(f"{at:8.3f}  {arrow:<18} {'; '.join(words)}")

    def peer(self, words: list[str]) -> Peer:
        kind, number = words
        return self.world.engines[int(number)] if kind == "engine" else self.world.clients[int(number) - 1]

    # ------------------------------------------------------------ commands

    def cluster(self, words: list[str], options: dict[str, str]) -> None:
        host = self.world.host()
        for _ in range(int(options.get("engines", 1))):
            self.world.engine(host=host)
            self.world.run_for(0.005)
        for _ in range(int(options.get("clients", 1))):
            self.world.client()
        self.world.run_for(0.005)
        names = [f"{engine.name} is engine {engine.engine}" for engine in self.world.engines]
        self.lines = [", ".join([*names, *(client.name for client in self.world.clients)])]

    def join_engine(self, options: dict[str, str]) -> None:
        self.world.engine(host=self.world.hosts[0], speed=float(options.get("speed", 1)))
        self.world.run_for(0.01)

    def join_client(self) -> None:
        self.world.client()
        self.world.run_for(0.01)

    def call(self, words: list[str], options: dict[str, str]) -> None:
        client = self.world.clients[int(options.pop("client", 1)) - 1]
        count = int(options.pop("count", 1))
        arguments: dict[str, object] = {}
        for name, value in options.items():
            if name in ("after", "follow"):
                arguments[name] = m.Dependency(tuple(map(named, value.split(","))))
            elif name in ("engines", "candidates", "unmet"):
                arguments[name] = tuple(map(int, value.split(",")))
            elif name == "manner":
                arguments[name] = value
            else:
                arguments[name] = float(value) if name.endswith("_s") else int(value)
        numbers = []
        for _ in range(count):
            numbers += [outcome.task for outcome in client.call(*words, **arguments)]  # type: ignore[arg-type]
        first, last = numbers[0] & 0xFFFF, numbers[-1] & 0xFFFF
        self.lines.append(f"task {first}" if first == last else f"tasks {first} to {last}")

    def cancel(self, words: list[str], options: dict[str, str]) -> None:
        grace = options.get("grace")
        grace_s = None if grace is None else float(grace)
        self.world.clients[0].cancel(map(int, words), grace_s=grace_s)

    def run(self, words: list[str], options: dict[str, str]) -> None:
        if words:
            self.world.run_for(float(words[0]))
        else:
            self.world.run()
            for client in self.world.clients:
                for outcome in client.outcomes.values():
                    outcome.check()

    def kill(self, words: list[str], options: dict[str, str]) -> None:
        report = options.get("report", "0")
        self.world.kill(
            self.world.engines[int(words[0])],
            proof=options.get("proof", "yes") == "yes",
            report_s=None if report == "never" else float(report),
        )

    def leave(self, peer: Peer) -> None:
        assert not isinstance(peer, type(self.world.hosts[0]))
        peer.leave()

    def forget(self, peer: Peer) -> None:
        """As after a silent redial: the controller does not know the route any more."""
        controller = self.world.controller
        kind = "client" if peer in self.world.clients else "engine"
        bound = controller._routes.of(kind, peer.client if kind == "client" else peer.engine)  # type: ignore[union-attr]
        assert bound is not None
        controller._unbind(bound, self.world.clock.now())

    def make_late(self) -> None:
        network = self.world.network
        network.fates[network.carried] = Fate.LATE

    def show(self, words: list[str], options: dict[str, str]) -> None:
        assert words == ["acknowledgements"]
        self.hidden = (m.Ping,)

    def status(self) -> None:
        counts = self.world.state.scheduler.statistics()._asdict()
        self.lines.append(", ".join(f"{count} {name}" for name, count in counts.items() if count))


def named(text: str) -> TaskId:
    """A task of a dependency: `3`, or `2:3` for another client than the first."""
    client, _, number = text.rpartition(":")
    return make_task_id(ClientId(int(client or 1)), int(number))


def parts(text: str) -> Iterator[tuple[list[str], str, list[str]]]:
    """(comment lines, command, transcript) of each paragraph."""
    for paragraph in text.strip().split("\n\n"):
        head, _, transcript = paragraph.partition("\n----")
        *comments, command = head.splitlines()
        assert all(line.startswith("#") for line in comments), paragraph
        yield comments, command, transcript.splitlines()[1:]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    stage = Stage()
    told, expected = [], []
    try:
        for comments, command, transcript in parts(path.read_text()):
            head = [*comments, command, "----"]
            told.append("\n".join([*head, *stage.do(command)]))
            expected.append("\n".join([*head, *transcript]))
        stage.world.settle()
        stage.world.check_nothing_left()
    finally:
        stage.world.close()
    if os.environ.get("ENGINERY_REWRITE"):
        path.write_text("\n\n".join(told) + "\n")
    else:
        assert told == expected


def test_there_are_scenarios() -> None:
    assert len(FILES) >= 12
