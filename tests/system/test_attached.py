"""Front-ends of Jupyter, attached to a live engine."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client import BlockingKernelClient

import enginery as ipp
from tests.system.api.held import Gate
from tests.system.shared import PATIENCE_S, until

Message = dict[str, Any]


class FrontEnd:
    """A front-end, with what it has been shown."""

    def __init__(self, file: str) -> None:
        self.client = BlockingKernelClient(connection_file=file)
        self.client.load_connection_file()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PATIENCE_S)

    def run(self, code: str, **options: Any) -> tuple[Message, list[Message]]:
        """The reply, and what was published for it but for states."""
        shown: list[Message] = []
        reply = self.client.execute_interactive(code, output_hook=shown.append, timeout=PATIENCE_S, **options)
        return reply["content"], [one for one in shown if one["msg_type"] not in ("status", "execute_input")]

    def text(self, code: str) -> str:
        """What it prints."""
        _, shown = self.run(code)
        return "".join(one["content"]["text"] for one in shown if one["msg_type"] == "stream")

    def until_shown(self, text: str) -> None:
        seen = ""
        while text not in seen:
            message = self.client.get_iopub_msg(timeout=PATIENCE_S)
            if message["msg_type"] == "stream":
                seen += message["content"]["text"]

    def until_busy(self, request: str) -> None:
        """It has come to the kernel."""
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE_S)
            if message["msg_type"] == "status" and message["parent_header"].get("msg_id") == request:
                return

    def reply(self, request: str) -> Message:
        while True:
            message: Message = self.client.get_shell_msg(timeout=PATIENCE_S)
            if message["parent_header"]["msg_id"] == request:
                return message["content"]  # type: ignore[no-any-return]

    def interrupt(self) -> None:
        """Returns when it has been done."""
        message = self.client.session.msg("interrupt_request", {})
        self.client.control_channel.send(message)
        answer = self.client.get_control_msg(timeout=PATIENCE_S)
        assert answer["content"]["status"] == "ok"


@pytest.fixture(scope="module")
def rc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ipp.Client]:
    runtime = str(tmp_path_factory.mktemp("jupyter"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_RUNTIME_DIR", runtime)
        with ipp.Cluster(n=1) as client:
            yield client
        assert os.listdir(runtime) == [], "the connection files go with their engines"


@pytest.fixture
def front_end(rc: ipp.Client) -> Iterator[FrontEnd]:
    front_end = FrontEnd(rc[0].apply_sync(ipp.bind_kernel))
    yield front_end
    front_end.client.stop_channels()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()


def test_cells_share_the_live_namespace_with_tasks(rc: ipp.Client, front_end: FrontEnd) -> None:
    rc[0].push({"x": 41}, block=True)
    reply, shown = front_end.run("x + 1")
    assert reply["status"] == "ok"
    assert [one["content"]["data"]["text/plain"] for one in shown] == ["42"]
    front_end.run("x = 7")
    assert rc[0]["x"] == 7
    assert rc[0].apply_sync(lambda: 5) == 5


def test_output_goes_to_whom_it_belongs(rc: ipp.Client, front_end: FrontEnd, gate: Gate) -> None:
    held = gate.hold(rc[0])
    request = front_end.client.execute("print('of the cell')")
    behind = rc[0].execute("print('of the task')")
    gate.open()
    front_end.until_shown("of the cell\n")
    assert front_end.reply(request)["status"] == "ok"
    behind.wait_for_output(PATIENCE_S)
    assert (held.stdout, behind.stdout) == ("begun\n", "of the task\n")
    assert front_end.text("!echo a process") == "a process\r\n"
    text = front_end.text("import threading; go = threading.Event()\nprint('first')")
    assert text == "first\n"
    front_end.run(
        "import threading\n"
        "threading.Thread(target=lambda: (go.wait(), print('late, and still of the front-end'))).start()"
    )
    later = rc[0].execute("go.set()")
    front_end.until_shown("late, and still of the front-end\n")
    later.wait_for_output(PATIENCE_S)
    assert later.stdout == ""


def test_displays_come_as_in_any_notebook(front_end: FrontEnd) -> None:
    _, shown = front_end.run(
        "from IPython.display import display, HTML\nh = display(HTML('<b>1</b>'), display_id='d')\n"
        "h = display(HTML('<b>2</b>'), display_id='d', update=True)"
    )
    assert [(one["msg_type"], one["content"]["data"]["text/html"]) for one in shown] == [
        ("display_data", "<b>1</b>"),
        ("update_display_data", "<b>2</b>"),
    ]
    assert shown[0]["content"]["transient"] == {"display_id": "d"}


def test_an_error_is_its_cells_and_ends_what_was_asked_for_behind_it(
    rc: ipp.Client, front_end: FrontEnd, gate: Gate
) -> None:
    gate.hold(rc[0])
    requests = [front_end.client.execute(code) for code in ("1 / 0", "survived = True")]
    front_end.until_busy(requests[1])
    gate.open()
    failed, behind = map(front_end.reply, requests)
    assert (failed["status"], failed["ename"], failed["evalue"]) == (
        "error",
        "ZeroDivisionError",
        "division by zero",
    )
    assert behind["status"] == "aborted"
    reply, _ = front_end.run("'survived' in globals()", user_expressions={"sum": "1 + 1"})
    assert reply["status"] == "ok"
    assert reply["user_expressions"]["sum"]["data"]["text/plain"] == "2"
    assert rc[0].apply_sync(lambda: "survived" in globals()) is False


def test_exit_ends_no_engine(rc: ipp.Client, front_end: FrontEnd) -> None:
    reply, _ = front_end.run("exit()")
    assert reply["status"] == "error"
    assert rc[0].apply_sync(abs, -1) == 1


def test_an_interrupt_hits_its_own_cell_alone(rc: ipp.Client, front_end: FrontEnd, gate: Gate) -> None:
    request = front_end.client.execute("import time\nprint('begun')\ntime.sleep(600)")
    front_end.until_shown("begun\n")
    behind = rc[0].apply_async(abs, -3)
    front_end.interrupt()
    assert front_end.reply(request)["ename"] == "KeyboardInterrupt"
    assert behind.get(timeout=PATIENCE_S) == 3
    held = gate.hold(rc[0])
    front_end.interrupt()
    assert not held.done()
    gate.open()
    assert held.get(timeout=PATIENCE_S) == "through"


def test_what_needs_no_main_thread_is_answered_while_a_task_runs(
    rc: ipp.Client, front_end: FrontEnd, gate: Gate
) -> None:
    rc[0].execute("def some_function(): 'What it does.'", block=True)
    gate.hold(rc[0])
    completed = front_end.client.complete("x = some_fun", reply=True, timeout=PATIENCE_S)["content"]
    assert (completed["matches"], completed["cursor_start"]) == (["some_function"], 4)
    inspected = front_end.client.inspect("some_function", reply=True, timeout=PATIENCE_S)["content"]
    assert inspected["found"]
    assert "What it does." in inspected["data"]["text/plain"]
    assert front_end.reply(front_end.client.inspect("nowhere"))["found"] is False
    asked = front_end.reply(front_end.client.is_complete("for x in y:"))
    assert (asked["status"], asked["indent"]) == ("incomplete", "    ")
    assert front_end.reply(front_end.client.history())["history"] == []
    assert front_end.reply(front_end.client.comm_info())["comms"] == {}
    until(front_end.client.is_alive)  # hearts beat once a second


def test_a_front_end_cannot_shut_an_engine_down(rc: ipp.Client, front_end: FrontEnd) -> None:
    front_end.client.shutdown()
    assert front_end.client.get_control_msg(timeout=PATIENCE_S)["content"]["restart"] is False
    assert rc[0].apply_sync(abs, -1) == 1


def test_its_sockets_are_its_users_alone(rc: ipp.Client, front_end: FrontEnd) -> None:
    info = front_end.client.get_connection_info()
    assert info["transport"] == "ipc"
    directory = Path(info["ip"]).parent
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(Path(front_end.client.connection_file).stat().st_mode) & 0o077 == 0
    shown = rc[0].execute("%connect_info", block=True).stdout
    assert f"jupyter console --existing {front_end.client.connection_file}" in shown
    key = info["key"].decode() if isinstance(info["key"], bytes) else info["key"]
    assert f'"key": "{key}"' in shown


def test_what_is_not_signed_is_not_run(rc: ipp.Client, front_end: FrontEnd) -> None:
    session = front_end.client.session
    key, session.key = session.key, b"another"
    front_end.client.execute("forged = True")
    session.key = key
    front_end.run("pass")
    assert rc[0].apply_sync(lambda: "forged" in globals()) is False


def test_a_port_of_the_loopback_interface_if_it_is_asked_for() -> None:
    with ipp.Cluster(n=1) as rc:
        file = rc[0].apply_sync(ipp.bind_kernel, transport="tcp")
        front_end = FrontEnd(file)
        try:
            assert front_end.client.get_connection_info()["ip"] == "127.0.0.1"
            assert front_end.text("print(1)") == "1\n"
        finally:
            front_end.client.stop_channels()
        rc.shutdown(targets=[0])
        until(lambda: not os.path.exists(file))


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(RuntimeError, match="bind_kernel works on an engine only"):
        ipp.bind_kernel()
    with pytest.raises(ValueError, match="transport is 'ipc' or 'tcp', not 'udp'"):
        ipp.bind_kernel(transport="udp")
    with pytest.raises(TypeError, match="has no keyword 'port'; it has transport, ip and shell_port"):
        ipp.bind_kernel(port=1)
