"""A whole engine on a network without sockets: its main thread is the test's, the controller a thread."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from enginery.engine import service, startup
from enginery.engine.interrupts import KNOCK
from enginery.engine.namespace import SHELL_NAMES
from enginery.engine.service import Engine
from enginery.engine.startup import CLIENT_FILE_VARIABLE, ENGINE_VARIABLE
from enginery.ids import BlobId, EngineId, EngineKey, TaskId
from enginery.objects.displays import unpack_display
from enginery.objects.packing import pack, pack_call, unpack
from enginery.protocol import codec
from enginery.protocol import messages as m
from enginery.protocol.specs import STARTUP_FAILED, EngineSpec
from enginery.transport import clock
from enginery.transport.channel import Role, Route
from enginery.transport.memory import MemoryNetwork
from enginery.transport.sharing import Sharing

PATIENCE_S = 10.0
Found = TypeVar("Found", bound=m.Record)


class Conversation:
    """The controller's end of one connection, by hand."""

    def __init__(self, site: Site, decoder: codec.Decoder[Any]) -> None:
        self._site = site
        self._decoder = decoder
        self._number = 0
        self.route: Route | None = None
        self.heard: list[m.Record] = []
        self.bulk_received = 0

    def on_message(self, header: codec.Buffer, frames: list[codec.Buffer]) -> None:
        self.heard += self._decoder.decode(header, frames).records
        self.bulk_received += sum(map(len, frames))

    def say(self, *records: m.Record) -> None:
        assert self.route is not None
        header = codec.encode(1, self._number, self.bulk_received, records)
        self._site.network.exchange.send(self.route, header)
        self._number += 1

    def say_with(self, record: m.Record, frame: codec.Buffer) -> None:
        """A piece of a blob."""
        assert self.route is not None
        header = codec.encode(1, self._number, self.bulk_received, [record])
        self._site.network.exchange.send(self.route, header, [frame])
        self._number += 1

    def hear(self, kind: type[Found]) -> Found:
        """The next record of this kind, whenever it comes."""
        deadline = clock.now() + PATIENCE_S
        while True:
            for number, record in enumerate(self.heard):
                if isinstance(record, kind):
                    del self.heard[number]
                    return record
            assert clock.now() < deadline, self.heard
            self._site.receive(deadline)


class Site:
    """An engine, and the controller that a test scripts."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.tasks = Conversation(self, codec.from_engine())
        self.control = Conversation(self, codec.from_control())
        self._tasks = 0

    def run(self, script: Callable[[], object], **spec: Any) -> int:
        """Run the engine until the script is through; returns its exit code."""
        engine = Engine(
            EngineSpec(cluster="c", connection_file="", key=EngineKey("e"), **spec),
            version="0",
            host="h",
            channel=self.network.dial(Role.ENGINE),
            control=self.network.dial(Role.ENGINE),
            sharing=Sharing(None, "engine-e", limit_bytes=0),
            find_client_file=lambda: "/c/client.json",
        )
        errors: list[BaseException] = []

        def follow() -> None:
            try:
                assert self.tasks.hear(m.EngineHello).key == "e"
                self.tasks.say(m.EngineWelcome("k", EngineId(5), 0, 1 << 20))
                script()
            except BaseException as error:
                errors.append(error)
            finally:
                self.tasks.say(m.Goodbye())

        thread = threading.Thread(target=follow)
        thread.start()
        code = engine.run()
        thread.join(PATIENCE_S)
        if errors:
            raise errors[0]
        return code

    def receive(self, deadline: float) -> None:
        self.network.exchange.wait(max(deadline - clock.now(), 0.0))
        for incoming in self.network.exchange.drain():
            self._conversation(incoming.route).on_message(incoming.header, list(incoming.frames))

    def _conversation(self, route: Route) -> Conversation:
        """The engine dials for its tasks first, and says hello there first."""
        for conversation in (self.tasks, self.control):
            conversation.route = conversation.route or route
            if conversation.route == route:
                return conversation
        raise AssertionError(f"a third connection: {route}")

    def bind_control(self) -> None:
        self.control.hear(m.ControlHello)
        self.control.say(m.ControlWelcome(EngineId(5)))

    def begin(self, kind: m.Kind, value: object) -> TaskId:
        self._tasks += 1
        call = m.EngineCall(TaskId(self._tasks), 1, pack(value).inline)
        self.tasks.say(m.Run(m.RunOptions(kind, BlobId(b""), "", announce=True), [call]))
        return call.task

    def pack_call(self, *args: object) -> bytes:
        return pack_call(args, {}).inline

    def result(self) -> m.EngineResult:
        record = self.tasks.hear(m.Results)
        self.tasks.say(m.Stored(record.first + len(record.results)))
        (result,) = record.results
        return result

    def execute(self, text: str) -> m.EngineResult:
        self.begin(m.Kind.EXECUTE, (text, "<execute>", False))
        return self.result()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    site = Site()
    for name in (ENGINE_VARIABLE, CLIENT_FILE_VARIABLE):
        monkeypatch.setenv(name, "of another")
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # which ``exit()`` closes
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, KNOCK)}
    yield site
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
    site.network.close()


def test_what_the_controller_is_told_of_a_failure(site: Site) -> None:
    def script() -> None:
        assert site.execute("1").error_types == ()
        result = site.execute("{}['a\\nb']")
        assert (result.status, result.error) == (m.Status.ERROR, "KeyError: 'a\\nb'")
        assert result.error_types[:2] == ("builtins.KeyError", "builtins.LookupError")
        refused = site.execute("from enginery.errors import *\nraise UnmetDependency('not here')")
        assert (refused.status, refused.error) == (m.Status.UNMET, "UnmetDependency: not here")
        for text in ("exit()", "quit()", "raise SystemExit"):
            gone = site.execute(text)
            assert (gone.status, gone.error.split(":")[0]) == (m.Status.ERROR, "SystemExit")
        assert unpack(site.execute("6 * 7").payload)["data"] == {"text/plain": "42"}

    assert site.run(script) == 0


def test_a_result_that_is_too_large_is_an_error_with_both_sizes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "CALL_LIMIT_BYTES", 1_000_000)

    def script() -> None:
        site.begin(m.Kind.PULL, (["bytearray(1_000_001)"], True))
        result = site.result()
        assert result.status is m.Status.ERROR
        assert re.fullmatch(
            "TooLarge: the result has 1000[0-9]{3} bytes; the limit is 1000000 bytes", result.error
        )
        assert result.blobs == ()
        assert result.error_types[:2] == ("enginery.errors.TooLarge", "enginery.errors.EngineryError")

    assert site.run(script) == 0


def test_the_process_knows_which_engine_it_is(site: Site) -> None:
    def script() -> None:
        site.begin(m.Kind.PULL, ([f"__import__('os').environ[{ENGINE_VARIABLE!r}]"], True))
        assert unpack(site.result().payload) == "5"

    assert site.run(script) == 0
    assert (os.environ[ENGINE_VARIABLE], os.environ[CLIENT_FILE_VARIABLE]) == ("5", "/c/client.json")


BUSY = """
mine = 1
def task():
    import enginery.engine.publishing as publishing, sys, time
    print("begun")
    publishing.publish_data({{"step": 1}})
    until = time.monotonic() + 10
    while {going_on} and time.monotonic() < until:
        pass
    print("ended")
task()
"""


def test_values_come_while_a_task_computes(site: Site) -> None:
    go_on = threading.Event()

    def script() -> None:
        site.bind_control()
        task = site.begin(m.Kind.EXECUTE, (BUSY.format(going_on="not sys.go_on.is_set()"), "<execute>"))
        text, value = site.control.hear(m.EngineOutput), site.control.hear(m.EngineData)
        assert (text.task, text.text, text.attempt, text.number) == (task, "begun\n", 1, 1)
        assert (value.task, value.name, unpack(value.payload)) == (task, "step", 1)
        assert not any(isinstance(record, m.Results) for record in site.tasks.heard)
        go_on.set()
        result = site.result()
        assert (result.status, result.stdout, result.outputs) == (m.Status.OK, "", 2)
        closing = site.control.hear(m.EngineOutput)
        assert (closing.text, closing.number) == ("ended\n", 2), "by which its client knows the last value"

    sys.go_on = go_on  # type: ignore[attr-defined]
    try:
        assert site.run(script) == 0
    finally:
        del sys.go_on  # type: ignore[attr-defined]


def test_a_namespace_is_cleared_whatever_runs(site: Site) -> None:
    def script() -> None:
        site.bind_control()
        site.execute("kept = 1")
        task = site.begin(m.Kind.EXECUTE, (BUSY.format(going_on="'mine' in globals()"), "<execute>"))
        assert site.control.hear(m.EngineData).task == task
        site.control.say(m.ClearNamespace(4))
        assert site.control.hear(m.Obeyed) == m.Obeyed(4)
        assert site.result().status is m.Status.OK
        site.begin(m.Kind.PULL, (["[name for name in globals() if name[:2] != '__']"], True))
        assert set(unpack(site.result().payload)) == SHELL_NAMES

    assert site.run(script) == 0


def test_what_a_cleared_namespace_held_ends_in_the_main_thread(site: Site) -> None:
    """Code of the user's runs in it; in the control thread it could hold up all that thread is there for."""
    where: list[str] = []

    class Held:
        def __del__(self) -> None:
            where.append(threading.current_thread().name)

    def script() -> None:
        site.bind_control()
        site.execute("import sys; held = sys.make_held()")
        site.control.say(m.ClearNamespace(1))
        site.control.hear(m.Obeyed)
        site.execute("1")
        assert where == [threading.main_thread().name]

    sys.make_held = Held  # type: ignore[attr-defined]
    try:
        assert site.run(script) == 0
    finally:
        del sys.make_held  # type: ignore[attr-defined]


def test_a_thread_that_prints_late_does_not_print_for_another_task(site: Site) -> None:
    text = (
        "import threading; go = threading.Event()\n"
        "late = threading.Thread(target=lambda: (go.wait(10), print('late')))\n"
        "late.start(); print('first')"
    )

    def script() -> None:
        assert site.execute(text).stdout == "first\n"
        assert site.execute("go.set(); late.join(10); print('second')").stdout == "second\n"

    assert site.run(script) == 0


def test_displays_come_while_a_task_computes(site: Site) -> None:
    go_on = threading.Event()

    def script() -> None:
        site.bind_control()
        text = "import sys\nprint('a')\ndisplay({'text/html': 'b'}, raw=True)\nsys.go_on.wait(10)\ndisplay(5)"
        task = site.begin(m.Kind.EXECUTE, (text, "<execute>"))
        assert site.control.hear(m.EngineOutput).text == "a\n"
        shown = site.control.hear(m.EngineDisplay)
        assert (shown.task, shown.kind, shown.is_last) == (task, "display_data", True)
        assert unpack_display(shown.content) == ({"text/html": "b"}, {}, {})
        go_on.set()
        assert site.result().status is m.Status.OK
        assert unpack_display(site.control.hear(m.EngineDisplay).content).data == {"text/plain": "5"}

    sys.go_on = go_on  # type: ignore[attr-defined]
    try:
        assert site.run(script) == 0
    finally:
        del sys.go_on  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text",
    [
        "import sys, io; sys.stdout = sys.stderr = io.StringIO(); print('lost')",
        "import sys; sys.stdout.close(); sys.stderr.close()",
        "import sys; del sys.stdout",
        "%%capture\nimport sys; sys.stdout = None",
    ],
)
def test_the_next_task_prints_whatever_this_one_has_done_to_stdout(site: Site, text: str) -> None:
    def script() -> None:
        site.execute(text)
        site.begin(m.Kind.EXECUTE, ("import sys; print('out'); print('err', file=sys.stderr)", "<execute>"))
        result = site.result()
        assert (result.stdout, result.stderr) == ("out\n", "err\n")

    assert site.run(script) == 0


# ---------------------------------------------------------------- startup


def test_startup_comes_before_the_first_task(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "start.py"
    path.write_bytes("# coding: latin-1\nb = a + 'é'; c = __file__".encode("latin-1"))

    def script() -> None:
        site.begin(m.Kind.PULL, (["a", "b", "c", "'__file__' in globals()", "__name__"], False))
        assert unpack(site.result().payload) == ["5", "5é", str(path), False, "__main__"]

    code = f"%precision\nimport os; a = os.environ[{ENGINE_VARIABLE!r}]"
    assert site.run(script, startup_code=code, startup_script=str(path)) == 0


@pytest.mark.parametrize("text", ["x = 1\nno_such_name", "raise SystemExit(0)", "a b"])
@pytest.mark.parametrize("place", ["startup_code", "startup_script"])
def test_an_engine_whose_startup_fails_ends(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture, place: str, text: str
) -> None:
    """Without a goodbye: what its supervisor says of its end is the cause that everybody hears of."""
    path = tmp_path / "start.py"
    path.write_text(text)
    assert site.run(lambda: None, **{place: text if place == "startup_code" else str(path)}) == STARTUP_FAILED
    site.receive(clock.now())
    assert not any(isinstance(record, m.Goodbye) for record in site.tasks.heard)
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    shown = record.getMessage()
    assert shown.startswith("the startup code failed:\nTraceback (most recent call last):\n")
    assert text.splitlines()[-1] in shown
    if text != "a b":
        assert str(Path(startup.__file__)) not in shown, "the engine's own lines say nothing to its user"


def test_ipythons_startup_files_run_only_if_asked_for(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their order, before the code that was given."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    directory = tmp_path / "profile_default" / "startup"
    directory.mkdir(parents=True)
    (directory / "10-second.ipy").write_text("here = %pwd\norder.append(here)")
    (directory / "00-first.py").write_text("order = [__file__]")
    (directory / "README").write_text("no code")

    def script() -> None:
        site.begin(m.Kind.PULL, (["order"], True))
        assert unpack(site.result().payload) == [str(directory / "00-first.py"), os.getcwd(), "code"]

    assert site.run(script, run_startup=True, startup_code="order.append('code')") == 0


def test_without_being_asked_for_they_do_not_run(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    directory = tmp_path / "profile_default" / "startup"
    directory.mkdir(parents=True)
    (directory / "00-first.py").write_text("raise SystemExit")
    assert site.run(lambda: site.execute("%precision"), startup_code="x = 1") == 0


def test_an_ipython_startup_file_that_fails_ends_the_engine(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    directory = tmp_path / "profile_default" / "startup"
    directory.mkdir(parents=True)
    (directory / "00-first.py").write_text("1 / 0")
    assert site.run(lambda: None, run_startup=True) == STARTUP_FAILED
    assert str(directory / "00-first.py") in caplog.text


def test_a_startup_script_that_is_not_there(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    assert site.run(lambda: None, startup_script="/no/such/file.py") == STARTUP_FAILED
    assert "No such file or directory: '/no/such/file.py'" in caplog.text


# ---------------------------------------------------------------- leaving

LARGE_PIECES = 48
"""More than the bulk window of a link."""


def begin_large(site: Site) -> TaskId:
    return site.begin(m.Kind.PULL, ([f"bytearray({LARGE_PIECES} << 20)"], True))


def test_the_goodbye_comes_behind_large_results(site: Site) -> None:
    order: list[type[m.Record]] = []

    def script() -> None:
        begin_large(site)
        site.tasks.hear(m.PutBlob)
        site.tasks.say(m.Goodbye())
        for _ in range(LARGE_PIECES - 1):
            site.tasks.hear(m.PutBlob)
            site.tasks.say(m.Ping())  # says how much has come
        while m.Goodbye not in order:
            order.append(type(site.tasks.hear(m.Record)))

    assert site.run(script) == 0
    assert order == [m.Started, m.Results, m.Goodbye]


def test_an_engine_that_cannot_wait_says_that_the_task_was_begun(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "DRAIN_S", 0.0)

    def script() -> None:
        task = begin_large(site)
        site.tasks.hear(m.PutBlob)
        site.tasks.say(m.Goodbye())
        assert site.tasks.hear(m.Goodbye).started == [(task, 1)]
        assert not any(isinstance(record, m.Results) for record in site.tasks.heard)

    assert site.run(script) == 0


def test_what_the_welcome_takes_back_is_not_begun(site: Site) -> None:
    """The answer to an engine that was away for so long that its tasks have gone elsewhere."""

    def script() -> None:
        calls = [m.EngineCall(TaskId(number), 1, pack(([f"{number} * 7"], True)).inline) for number in (1, 2)]
        run = m.Run(m.RunOptions(m.Kind.PULL, BlobId(b""), "", announce=True), calls)
        site.tasks.say(run, m.EngineWelcome("k", EngineId(5), 0, 1 << 20, [(TaskId(1), 1)]))
        assert site.tasks.hear(m.Started).task == 2
        assert unpack(site.result().payload) == 14

    assert site.run(script) == 0


def test_items_that_are_skipped_are_noted_under_the_lock(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the main thread is told of them, with their part, or the control thread."""
    held: list[bool] = []

    install = Engine._install

    def watch(engine: Engine) -> None:
        install(engine)
        engine.interrupts.skip = lambda *_, **__: held.append(engine._lock.locked())  # type: ignore[method-assign]

    monkeypatch.setattr(Engine, "_install", watch)

    def script() -> None:
        site.bind_control()
        call = m.EngineCall(TaskId(1), 1, pack((["1"], True)).inline)
        options = m.RunOptions(m.Kind.PULL, BlobId(b""), "", announce=True)
        site.tasks.say(m.Run(options, [call], [(call.task, [0])]))
        site.result()
        site.control.say(m.SkipItems(TaskId(2), 1, [0]))
        site.control.say(m.EndCalls([], 0.0))
        site.control.hear(m.TakenBack)

    assert site.run(script) == 0
    assert held == [True, True]
