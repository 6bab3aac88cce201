"""Hosts of real processes: every end is reported or explained, and nothing is left after any of them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psutil
import pytest

from enginery.ids import EngineId, TaskId
from enginery.protocol import codec
from enginery.protocol.link import Link, Verdict
from enginery.protocol.messages import (
    EngineExited,
    EnginesStarted,
    Goodbye,
    HelloFirst,
    HostHello,
    HostWelcome,
    LastWord,
    LaunchEngines,
    ProcessInfo,
    ProcessText,
    Record,
    Refused,
    SignalProcesses,
    StopProcesses,
)
from enginery.protocol.specs import ControllerSpec, HostSpec, Ready
from enginery.transport.addresses import ClusterDirectory
from enginery.transport.channel import Role, Route
from enginery.transport.connection_file import publish
from enginery.transport.exchange import open_exchange
from enginery.transport.keys import ClusterKeys

PROGRAM = Path(__file__).with_name("host_program.py")
LIMIT_S = 15.0

RecordType = TypeVar("RecordType", bound=Record)


class FakeController:
    """Speaks with one host; the process that the host takes for its controller does nothing."""

    def __init__(self, directory: ClusterDirectory) -> None:
        keys = ClusterKeys.generate()
        self._exchange = open_exchange(keys, directory.ipc_path(), host="127.0.0.1", port=0)
        publish(directory, keys, tcp=self._exchange.tcp_addresses, ipc=self._exchange.ipc_address)
        self._decoder = codec.from_host()
        self._link = Link()
        self._route: Route | None = None
        self._records: list[Record] = []
        self.hellos: list[HostHello] = []

    def say(self, *records: Record) -> None:
        for record in records:
            self._link.put(record)
        self._flush()

    def forget(self) -> None:
        """Ask for a hello, as a controller does that does not know this host."""
        assert self._route is not None
        header = codec.encode(self._link.epoch, 0, 0, [HelloFirst("this connection is not known")])
        self._exchange.send(self._route, header)

    def refuse(self, reason: str) -> None:
        assert self._route is not None
        self._exchange.send(self._route, codec.encode(self._link.epoch, 0, 0, [Refused(reason)]))

    def next(
        self, kind: type[RecordType], within_s: float = LIMIT_S, *, seen: list[ProcessText] | None = None
    ) -> RecordType:
        """The next record of this kind; those before it are dropped, or texts of engines put into `seen`."""
        deadline = time.monotonic() + within_s
        while True:
            while self._records:
                record = self._records.pop(0)
                if isinstance(record, kind):
                    return record
                if isinstance(record, ProcessText) and seen is not None:
                    seen.append(record)
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"no {kind.__name__} came within {within_s} s"
            self._receive(left_s)

    def close(self) -> None:
        self._exchange.close()

    def _receive(self, timeout_s: float) -> None:
        self._exchange.wait(timeout_s)
        while (incoming := self._exchange.receive()) is not None:
            assert incoming.role is Role.HOST
            envelope = self._decoder.decode(incoming.header, incoming.frames)
            if isinstance(envelope.records[0], HostHello):
                self._link = Link(envelope.epoch)
                self._route = incoming.route
                self._link.put(HostWelcome("test"))
                self.hellos.append(envelope.records[0])
            if self._link.on_message(envelope, incoming.frames) is Verdict.FRESH:
                self._records += envelope.records
        self._flush()

    def _flush(self) -> None:
        while (message := self._link.next_message()) is not None:
            assert self._route is not None
            self._exchange.send(self._route, *message)


class Host:
    """A host process and what is expected of it."""

    def __init__(self, process: subprocess.Popen[bytes], spec: HostSpec, ready_fd: int) -> None:
        self.process = process
        self.spec = spec
        self.directory = Path(spec.directory)
        self._ready_fd = ready_fd

    def ready(self) -> Ready:
        line = b""
        poll = select.poll()
        poll.register(self._ready_fd, select.POLLIN)
        while not line.endswith(b"\n"):
            assert poll.poll(LIMIT_S * 1000), "the host is not ready"
            piece = os.read(self._ready_fd, 4096)
            assert piece, "the host has closed the line"
            line += piece
        return msgspec.json.decode(line, type=Ready)

    def family(self) -> list[psutil.Process]:
        head = psutil.Process(self.process.pid)
        return [head, *head.children(recursive=True)]

    def wait(self) -> int:
        return self.process.wait(LIMIT_S)

    def log(self, name: str = "host.log") -> str:
        return (self.directory / "logs" / name).read_text()

    def close(self) -> None:
        os.close(self._ready_fd)
        if self.process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                for member in self.family():
                    member.kill()
            self.process.wait(LIMIT_S)


StartHost = Callable[..., Host]


@pytest.fixture
def directory(runtime_directory: Path, request: pytest.FixtureRequest) -> Iterator[ClusterDirectory]:
    directory = ClusterDirectory("h", runtime=runtime_directory).create()
    yield directory
    directory.remove()


@pytest.fixture
def controller(directory: ClusterDirectory) -> Iterator[FakeController]:
    controller = FakeController(directory)
    yield controller
    controller.close()


@pytest.fixture(params=["fork", "spawn"])
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start_host(directory: ClusterDirectory, method: str) -> Iterator[StartHost]:
    hosts: list[Host] = []

    def start(engines: int = 2, *, keep_directory: bool = False, **environment: str) -> Host:
        ready_fd, write_fd = os.pipe()
        path = str(directory.path)
        spec = HostSpec(
            cluster="h",
            directory=path,
            engines=engines,
            controller=ControllerSpec(cluster="h", directory=path),
            start_method=method,
            owner_pid=os.getpid(),
            ready_fd=write_fd,
            keep_directory=keep_directory,
        )
        process = run_program(spec, write_fd, **environment)
        os.close(write_fd)
        hosts.append(Host(process, spec, ready_fd))
        return hosts[-1]

    yield start
    for host in hosts:
        host.close()


def run_program(spec: HostSpec, keep: int, **environment: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), "host", "h", "--spec", "-"],
        stdin=subprocess.PIPE,
        pass_fds=[keep],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        start_new_session=True,
    )
    assert process.stdin is not None
    with process.stdin as stdin:
        stdin.write(spec.to_json().encode() + b"\n")
    return process


def wait_gone(processes: list[psutil.Process]) -> None:
    wait_for(lambda: [process for process in processes if is_there(process)], lambda left: left == [])


def is_there(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)  # dead, and its new parent has not looked yet
    except psutil.NoSuchProcess:
        return False


def wait_removed(path: Path) -> None:
    wait_for(lambda: sorted(path.rglob("*")) if path.exists() else None, lambda left: left is None)


def stop(host: Host, controller: FakeController) -> None:
    controller.say(StopProcesses([]))
    controller.next(Goodbye)
    # What the host takes for its controller does not know that it is to go, and would be told so after a
    # grace.
    for process in psutil.Process(host.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "controller" in " ".join(process.cmdline()):
                process.terminate()
    assert host.wait() == 0


# ---------------------------------------------------------------- start


def test_a_host_says_what_it_has(start_host: StartHost, controller: FakeController, method: str) -> None:
    host = start_host(3, keep_directory=True, OMP_NUM_THREADS="7")
    assert host.ready() == Ready()
    hello = controller.next(HostHello)
    assert [process.wanted for process in hello.processes] == [0, 1, 2]
    assert len({process.pid for process in hello.processes}) == 3
    family = host.family()
    titles = {process.pid: " ".join(process.cmdline()).strip() for process in family}
    if method == "fork":
        engines = {process.pid for process in hello.processes}
        assert {titles[pid] for pid in engines} == {"enginery: engine h"}
        others = sorted(title for pid, title in titles.items() if pid not in engines)
        assert others == ["enginery: controller h", "enginery: host h", "enginery: host h (supervisor)"]
    assert os.getsid(hello.processes[0].pid) == hello.processes[0].pid
    assert (host.directory / "keys.json").stat().st_mode & 0o777 == 0o600
    for number in range(3):
        wait_for_text(host, f"engine-{number}.log", "says")
    stop(host, controller)
    for number in range(3):
        assert host.log(f"engine-{number}.log") == f"engine {number} says 7 \n"
        assert (host.directory / "logs" / f"engine-{number}.log").stat().st_mode & 0o777 == 0o600
    wait_gone(family)


def test_a_controller_that_fails(start_host: StartHost) -> None:
    host = start_host(2, keep_directory=True, ENGINERY_TEST_CONTROLLER="fails")
    error = host.ready().error
    assert error.startswith("the controller has ended before it was ready (exited with code 5)")
    assert error.endswith("the port is taken")
    assert host.wait() == 1


def test_a_second_thread_forbids_fork(start_host: StartHost, method: str) -> None:
    if method == "spawn":
        pytest.skip("nothing is forked")
    host = start_host(ENGINERY_TEST_SECOND_THREAD="1")
    assert host.ready().error.startswith("the controller could not be started: the host has 2 threads")
    assert host.wait() == 1


def test_a_name_that_is_held(
    start_host: StartHost, directory: ClusterDirectory, controller: FakeController
) -> None:
    with directory.lock():
        host = start_host()
        assert "already running" in host.ready().error
        assert host.wait() == 1
    assert directory.connection_file("host").exists()


# ---------------------------------------------------------------- engines


def test_a_killed_engine_is_explained(start_host: StartHost, controller: FakeController) -> None:
    host = start_host(2, keep_directory=True)
    first, second = controller.next(HostHello).processes
    wait_for_text(host, "engine-1.log", "engine 1 says")
    os.kill(second.pid, signal.SIGKILL)
    exited = controller.next(EngineExited, within_s=2.0)
    assert exited == EngineExited(
        second.key,
        second.pid,
        "killed by SIGKILL (signal 9)",
        [101, 201],  # type: ignore[list-item]
        proof=True,
        expected=False,
    )
    assert not (host.directory / "engines" / second.key).exists()
    assert psutil.pid_exists(first.pid)
    stop(host, controller)


def test_an_engine_that_exits(start_host: StartHost, controller: FakeController) -> None:
    host = start_host(1, ENGINERY_TEST_ENGINES="0=exits")
    exited = controller.next(EngineExited)
    assert (exited.cause, exited.expected) == ("exited with code 3", False)
    stop(host, controller)


def test_engines_come_and_go(start_host: StartHost, controller: FakeController) -> None:
    host = start_host(1)
    (first,) = controller.next(HostHello).processes
    controller.say(LaunchEngines(5, [EngineId(7), EngineId(8)]))
    started = controller.next(EnginesStarted)
    assert (started.request, started.error) == (5, "")
    seventh, eighth = started.processes
    assert (seventh.wanted, eighth.wanted) == (7, 8)
    controller.say(StopProcesses([seventh.key]))
    exited = controller.next(EngineExited)
    assert (exited.key, exited.expected) == (seventh.key, True)
    controller.say(SignalProcesses([eighth.key], signal.SIGUSR1))
    exited = controller.next(EngineExited)
    assert (exited.key, exited.cause, exited.expected) == (
        eighth.key,
        f"killed by SIGUSR1 (signal {signal.SIGUSR1.value})",
        False,
    )
    assert psutil.pid_exists(first.pid)
    stop(host, controller)


def test_reports_are_said_again_after_a_hello(start_host: StartHost, controller: FakeController) -> None:
    host = start_host(2)
    first, second = controller.next(HostHello).processes
    os.kill(second.pid, signal.SIGKILL)
    report = controller.next(EngineExited)
    controller.forget()
    assert controller.next(HostHello).processes == [first]
    assert controller.next(EngineExited) == report
    assert len({hello.secret for hello in controller.hellos}) == 1
    stop(host, controller)


def test_a_stubborn_engine_is_killed(start_host: StartHost, controller: FakeController) -> None:
    host = start_host(2, ENGINERY_TEST_ENGINES="1=stubborn")
    _, second = controller.next(HostHello).processes
    wait_for_text(host, "engine-1.log", "engine 1 says")
    controller.say(StopProcesses([second.key]))
    exited = controller.next(EngineExited)
    assert (exited.key, exited.cause, exited.expected) == (second.key, "killed by SIGKILL (signal 9)", True)
    assert f"engine process {second.key} has not ended within the grace and is killed" in host.log()
    stop(host, controller)


# ---------------------------------------------------------------- ends


def test_stopping_leaves_nothing(start_host: StartHost, controller: FakeController) -> None:
    host = start_host(2, ENGINERY_TEST_ENGINES="0=breeds")
    controller.next(HostHello)
    wait_for_text(host, "engine-0.log", "engine 0 says")
    family = wait_for_family(host, 6 if host.spec.start_method == "fork" else 5)
    stop(host, controller)
    wait_gone(family)
    assert not host.directory.exists()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything_in_order(
    start_host: StartHost, controller: FakeController, signum: signal.Signals
) -> None:
    host = start_host(2, keep_directory=True)
    processes = controller.next(HostHello).processes
    family = host.family()
    host.process.send_signal(signum)
    ends = [controller.next(EngineExited) for _ in processes]
    assert {end.key for end in ends} == {process.key for process in processes}
    assert all(end.expected for end in ends)
    assert host.wait() == 0
    assert "has not ended within the grace" not in host.log()
    wait_gone(family)
    assert sorted(path.name for path in host.directory.iterdir()) == ["logs"]
    assert f"it was told to by {signum.name}" in host.log()


def test_the_death_of_the_controller_ends_everything(
    start_host: StartHost, controller: FakeController, method: str
) -> None:
    host = start_host(2, keep_directory=True)
    controller.next(HostHello)
    family = host.family()
    the_one(family, "controller", method).kill()
    assert host.wait() == 1
    wait_gone(family)
    assert sorted(path.name for path in host.directory.iterdir()) == ["logs"]
    assert "the controller has ended: killed by SIGKILL" in host.log()


def the_one(family: list[psutil.Process], word: str, method: str) -> psutil.Process:
    """The member of a host's family that says this word in its title."""
    lines = [" ".join(process.cmdline()) if method == "fork" else process.cmdline() for process in family]
    (place,) = [place for place, line in enumerate(lines) if word in line]
    return family[place]


def test_a_supervisor_that_was_killed_is_replaced(
    start_host: StartHost, controller: FakeController, method: str
) -> None:
    if method == "spawn":
        pytest.skip("the supervisor is a thread")
    host = start_host(2, ENGINERY_TEST_ENGINES="0=answers")
    first = controller.next(HostHello)
    the_one(host.family(), "supervisor", method).kill()
    second = controller.next(HostHello)
    assert (second.key, second.secret, second.processes) == (first.key, first.secret, first.processes)
    assert second.pid != first.pid
    quiet, answering = sorted(second.processes, key=lambda process: -process.wanted)

    controller.say(SignalProcesses([answering.key], signal.SIGUSR1))
    assert controller.next(ProcessText).text == "yes\n", "its pipes are read"
    os.kill(quiet.pid, signal.SIGKILL)
    end = controller.next(EngineExited)
    assert (end.key, end.cause, end.expected) == (quiet.key, "killed by SIGKILL (signal 9)", False)

    the_one(host.family(), "supervisor", method).kill()
    assert controller.next(HostHello).processes == [answering]
    assert controller.next(EngineExited).key == quiet.key, "it says again which have ended"
    family = host.family()
    stop(host, controller)
    wait_gone(family)
    wait_removed(host.directory)


def test_an_engine_that_ends_while_there_is_no_supervisor(
    start_host: StartHost, controller: FakeController, method: str
) -> None:
    if method == "spawn":
        pytest.skip("the supervisor is a thread")
    host = start_host(2)
    (first, other) = controller.next(HostHello).processes
    supervisor = the_one(host.family(), "supervisor", method)
    process = psutil.Process(first.pid)
    supervisor.suspend()  # it takes no word of the end
    process.kill()
    wait_gone([process])
    supervisor.kill()
    assert controller.next(HostHello).processes == [other]
    end = controller.next(EngineExited)
    assert (end.key, end.started) == (first.key, [TaskId(100 + first.wanted), TaskId(200 + first.wanted)])


def test_the_death_of_the_owner_ends_everything(
    directory: ClusterDirectory, controller: FakeController, method: str
) -> None:
    script = (
        "import json, os, signal, sys; sys.path[:0] = json.loads(sys.argv[2])\n"
        "from tests.system import test_host\n"
        "spec = test_host.msgspec.json.decode(sys.argv[1], type=test_host.HostSpec)\n"
        "spec = test_host.msgspec.structs.replace(spec, owner_pid=os.getpid())\n"
        "process = test_host.run_program(spec, 0, ENGINERY_TEST_ENGINES='1=breeds')\n"
        "signal.pause()\n"
    )
    path = str(directory.path)
    spec = HostSpec(
        cluster="h",
        directory=path,
        engines=2,
        controller=ControllerSpec(cluster="h", directory=path),
        start_method=method,
    )
    with subprocess.Popen([sys.executable, "-c", script, spec.to_json(), json.dumps(sys.path)]) as owner:
        processes = controller.next(HostHello).processes
        family = psutil.Process(owner.pid).children(recursive=True)
        assert {process.pid for process in processes} <= {process.pid for process in family}
        owner.kill()
    wait_gone(family)
    wait_removed(directory.path)


def test_the_death_of_the_zygote_ends_everything(
    start_host: StartHost, controller: FakeController, method: str
) -> None:
    if method == "spawn":
        pytest.skip("the children of a spawning host watch it themselves")
    host = start_host(2, ENGINERY_TEST_ENGINES="0=stubborn 1=stubborn")
    controller.next(HostHello)
    wait_for_text(host, "engine-1.log", "engine 1 says")
    family = host.family()
    host.process.kill()
    wait_gone(family)
    wait_removed(host.directory)


def test_nothing_is_held_open_by_engines(
    start_host: StartHost, controller: FakeController, method: str
) -> None:
    """What an engine inherits is its own: else the name, or an end of file, would wait for user code."""
    host = start_host(1)
    (engine,) = controller.next(HostHello).processes
    wait_for_text(host, "engine-0.log", "engine 0 says")
    opened = descriptors(engine)
    assert opened.pop(0) in ("/dev/null", "pipe")  # of the program, which reads its own spec
    assert (opened.pop(1), opened.pop(2)) == ("pipe", "pipe")
    assert list(opened.values()) == [str(host.directory / "engines" / engine.key)]
    stop(host, controller)


# ---------------------------------------------------------------- what engines write


@pytest.mark.parametrize("behaviour", ["speaks", "speaks-and-breeds"])
def test_what_an_engine_wrote_comes_before_the_report_of_its_death(
    start_host: StartHost, controller: FakeController, behaviour: str
) -> None:
    """Whoever still holds its pipes."""
    host = start_host(1, ENGINERY_TEST_ENGINES=f"0={behaviour}")
    task = TaskId(200)
    texts: list[ProcessText] = []
    exited = controller.next(EngineExited, seen=texts)
    assert {text.task for text in texts} == {task}
    written = {name: [text for text in texts if text.stream == name] for name in ("stdout", "stderr")}
    assert "".join(text.text for text in written["stdout"]) == "engine 0 says None \nmarked\n"
    assert [(text.attempt, text.mark) for text in written["stdout"]][-1] == (2, 7)
    assert [(text.text, text.mark) for text in written["stderr"]] == [("last é\n", 0)]
    assert [text.number for text in texts] == list(range(1, len(texts) + 1))
    assert exited.words == (LastWord(1, task, 2, "stdout", False, 0, "python\n"),)
    assert exited.cause == "killed by SIGKILL (signal 9)"
    logged = host.log("engine-0.log")
    assert "marked\n" in logged
    assert "last é\n" in logged
    assert "wrote last]\npython\n" in logged
    stop(host, controller)


def test_text_waits_for_a_welcome(start_host: StartHost, controller: FakeController) -> None:
    """It gathers while the controller does not know this host."""
    host = start_host(1, ENGINERY_TEST_ENGINES="0=speaks-and-waits")
    wait_for_text(host, "engine-0.log", "early")
    text = controller.next(ProcessText)  # now it hears the hello
    while not text.mark:
        text = controller.next(ProcessText)
    assert (text.task, text.text.splitlines()[-1], text.mark) == (200, "early", 1)
    stop(host, controller)


# ---------------------------------------------------------------- joining


@pytest.fixture
def join(
    directory: ClusterDirectory, runtime_directory: Path, method: str
) -> Iterator[Callable[[Path], Host]]:
    hosts: list[Host] = []

    def start(connection_file: Path) -> Host:
        ready_fd, write_fd = os.pipe()
        spec = HostSpec(
            cluster="h",
            directory=str(runtime_directory / "guest"),
            engines=2,
            connection_file=str(connection_file),
            start_method=method,
            ready_fd=write_fd,
        )
        process = run_program(spec, write_fd)
        os.close(write_fd)
        hosts.append(Host(process, spec, ready_fd))
        return hosts[-1]

    yield start
    for host in hosts:
        host.close()


@pytest.mark.parametrize("last_word", [StopProcesses([]), Goodbye()])
def test_a_host_that_joins(
    join: Callable[[Path], Host], directory: ClusterDirectory, controller: FakeController, last_word: Record
) -> None:
    host = join(directory.connection_file("host"))
    assert [process.wanted for process in controller.next(HostHello).processes] == [-1, -1]
    assert host.ready() == Ready()
    family = host.family()
    controller.say(last_word)
    controller.next(Goodbye)
    assert host.wait() == 0
    wait_gone(family)
    assert not host.directory.exists()
    assert directory.connection_file("host").exists()


def test_a_host_that_has_nobody_to_join(join: Callable[[Path], Host], directory: ClusterDirectory) -> None:
    host = join(directory.connection_file("host"))
    assert host.ready().error.startswith("there is no connection file")
    assert host.wait() == 1
    assert not host.directory.exists()


def test_a_host_that_is_refused(
    join: Callable[[Path], Host], directory: ClusterDirectory, controller: FakeController
) -> None:
    host = join(directory.connection_file("host"))
    controller.next(HostHello)
    controller.refuse("another host has registered under this key")
    assert host.ready() == Ready()  # of the welcome before
    assert host.wait() == 1


# ---------------------------------------------------------------- looking


def descriptors(process: ProcessInfo) -> dict[int, str]:
    found = {}
    for entry in Path(f"/proc/{process.pid}/fd").iterdir():
        target = os.readlink(entry)
        found[int(entry.name)] = "pipe" if target.startswith("pipe:") else target
    return found


def wait_for(what: Callable[[], Any], predicate: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + LIMIT_S
    while not predicate(found := what()):
        assert time.monotonic() < deadline, found
        select.select([], [], [], 0.01)
    return found


def wait_for_text(host: Host, name: str, text: str) -> None:
    path = host.directory / "logs" / name
    wait_for(lambda: path.read_text() if path.exists() else "", lambda found: text in found)


def wait_for_family(host: Host, count: int) -> list[psutil.Process]:
    family: list[psutil.Process] = wait_for(host.family, lambda found: len(found) == count)
    return family
