"""Everything is killed at random while tasks run; in the end each has ended once, with the right value or
a named error.

Victims are engines, the host's supervisor, the controller, and clients in processes of their own. How often
each is killed is a plan, made from a seed; what happens between two kills is up to the machine. Tasks are
those of a client that lives through it all, and of those that are killed: theirs are looked up by their ids.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import psutil

import enginery as ipp
from enginery.transport.connection_file import load
from tests.chaos.deeds import square

ENGINES = 4
AT_ONCE = 400
"""Unfinished tasks of the client that survives."""
RETRIES = 20
"""More deaths than one task will see."""
PATIENCE_S = 90.0
"""How long what is left may take when nobody is killed any more."""
NAMED = ("EngineError", "EngineLost", "EngineDied", "TaskCancelled")
"""What may become of a task that has no retries, and of one that was cancelled."""


@dataclass(frozen=True)
class Pace:
    """Seconds between two kills of a kind, on average."""

    engines: float = 2.0
    supervisor: float = 12.5
    controller: float = 16.0
    clients: float = 9.0


@dataclass
class Account:
    """What has happened."""

    kills: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)  # tasks, by "ok" or the name of their error
    wrong: list[str] = field(default_factory=list)

    def judge(self, what: str, expected: int, value: Any) -> None:
        """A task has ended, with a value or an exception."""
        if isinstance(value, BaseException):
            name = getattr(value, "ename", type(value).__name__)
            self.ended[name] += 1
            if name not in NAMED:
                self.wrong.append(f"{what} ended with {type(value).__name__}: {value}")
        else:
            self.ended["ok"] += 1
            if value != expected:
                self.wrong.append(f"{what} is {value!r} and not {expected!r}")

    @property
    def tasks(self) -> int:
        return sum(self.ended.values())


class Call(NamedTuple):
    """A call of the client that survives."""

    items: Sequence[int]  # what it squares
    result: ipp.AsyncResult


class Guest:
    """A client in a process of its own, and the tasks of which it has said that they are safe."""

    def __init__(self, connection_file: str) -> None:
        self.tasks: dict[str, int] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.guest", connection_file], stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith("\n"):
                task, number = line.split()
                self.tasks[task] = int(number)


class Rig:
    """One cluster with a client that survives, and what is done to it."""

    def __init__(self, cluster: ipp.Cluster, rc: ipp.Client, *, seed: int, pace: Pace) -> None:
        self.account = Account()
        self._cluster = cluster
        self._rc = rc
        self._random = random.Random(seed)
        self._pace = pace
        self._is_over = threading.Event()
        self._guests: list[Guest] = []
        self._calls: dict[str, Call] = {}
        self._endings: Counter[str] = Counter()

    def run(self, duration_s: float) -> Account:
        self._guests.append(Guest(self._rc.connection_file))
        killer = threading.Thread(target=self._kill_until_over)
        killer.start()
        try:
            self._submit_until(time.monotonic() + duration_s)
        finally:
            self._is_over.set()
            killer.join()
            for guest in self._guests:
                guest.kill()
        self._collect()
        return self.account

    # ------------------------------------------------------------ tasks

    def _submit_until(self, deadline: float) -> None:
        number = 0
        while time.monotonic() < deadline:
            while len(self._rc.outstanding) > AT_ONCE and time.monotonic() < deadline:
                self._rc.wait(timeout=0.5)
            number += self._submit(number)

    def _submit(self, number: int) -> int:
        """Some tasks of a kind; returns how many items they have."""
        kind = number // 20 % 4
        balanced = self._rc.load_balanced_view(retries=RETRIES)
        if kind == 0:
            parts = range(number, number + 20)
            self._note(balanced.map_async(square, parts, chunksize=5), *parts)
        elif kind == 1 and (engines := self._rc.ids):
            with contextlib.suppress(IndexError):  # it has left since
                view = self._rc[self._random.choice(engines)]
                for item in range(number, number + 20):
                    self._note(view.apply_async(square, item), item)
        else:
            results = [(item, balanced.apply_async(square, item)) for item in range(number, number + 20)]
            for item, result in results:
                self._note(result, item)
            if kind == 3:
                self._random.choice(results)[1].cancel()
        return 20

    def _note(self, result: ipp.AsyncResult, *items: int) -> None:
        name = result.msg_ids[0]
        self._calls[name] = Call(items, result)
        result.add_done_callback(lambda ended: self._endings.update([name]))

    # ------------------------------------------------------------ kills

    def _kill_until_over(self) -> None:
        kinds = asdict(self._pace)
        due = {name: pause * self._random.uniform(0.3, 1.0) for name, pause in kinds.items()}
        began = time.monotonic()
        while not self._is_over.is_set():
            name = min(due, key=due.__getitem__)
            if self._is_over.wait(max(0.0, began + due[name] - time.monotonic())):
                return
            if getattr(self, f"_kill_{name}")():
                self.account.kills[name] += 1
            due[name] = time.monotonic() - began + kinds[name] * self._random.uniform(0.7, 1.3)

    def _kill_engines(self) -> bool:
        engines = [pid for title, pid in self._family() if ": engine" in title]
        return bool(engines) and kill(self._random.choice(engines))

    def _kill_supervisor(self) -> bool:
        return any(kill(pid) for title, pid in self._family() if "(supervisor)" in title)

    def _kill_controller(self) -> bool:
        return kill(load(self._cluster.connection_file).controller_pid)

    def _kill_clients(self) -> bool:
        self._guests[-1].kill()
        self._guests.append(Guest(self._rc.connection_file))
        return True

    def _family(self) -> Iterator[tuple[str, int]]:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                yield " ".join(process.cmdline()), process.pid

    # ------------------------------------------------------------ the end

    def _collect(self) -> None:
        """Wait for everything, and judge it."""
        deadline = time.monotonic() + PATIENCE_S
        for name, call in self._calls.items():
            if not call.result.wait(max(0.0, deadline - time.monotonic())):
                self.account.wrong.append(f"{name} has not ended: {call.result.explain()}")
            elif self._endings[name] != 1:
                self.account.wrong.append(f"{name} has ended {self._endings[name]} times")
            else:
                self._judge(name, call)
        for guest in self._guests:
            tasks = list(guest.tasks)
            found = self._rc.get_result(tasks, block=False) if tasks else None
            if found is None:
                continue
            if not found.wait(max(0.0, deadline - time.monotonic())):
                self.account.wrong.append(
                    f"tasks of a client that was killed have not ended: {found.explain()}"
                )
                continue
            values = found.get(return_exceptions=True)
            for task, value in zip(tasks, values, strict=True):
                self.account.judge(task, guest.tasks[task] ** 2, value)

    def _judge(self, name: str, call: Call) -> None:
        values = call.result.get(return_exceptions=True)
        if len(call.items) == 1:
            values = [values]
        for item, value in zip(call.items, values, strict=True):
            self.account.judge(f"square({item}), task {name},", item * item, value)


def kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
