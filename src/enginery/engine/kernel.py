"""A Jupyter kernel in an engine: what `bind_kernel` starts, and front-ends attach to.

Problem: ipykernel takes a process over. Its shell runs cells beside the tasks of the main thread, its streams
take the place of the process's, its interrupt hits whatever runs.

Choice: the messaging protocol's side of it is a thread here, on `jupyter_client`'s sessions, and owns all
sockets. It answers at once what needs no main thread. Cells go to the engine, which runs them between two
tasks, in its one shell; what comes of them comes back here and goes to the front-end that sent the cell. The
sockets are of the kind ``ipc`` in a directory of mode 0700, or on the loopback interface behind a tunnel of
the user's; messages are signed with a key of their own.
"""

# mypy: allow-untyped-calls

from __future__ import annotations

import base64
import logging
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from IPython.core import release
from IPython.core.completer import provisionalcompleter, rectify_completions
from IPython.utils.tokenutil import token_at_cursor
from jupyter_client.connect import write_connection_file
from jupyter_client.session import Session
from jupyter_core.paths import jupyter_runtime_dir

from enginery.objects.displays import unpack_display
from enginery.transport.channel import Waker
from enginery.transport.kernel_sockets import KernelSockets

PROTOCOL = "5.3"
CELLS_KEPT = 100
"""Cells whose late output still finds its front-end."""
JOIN_S = 2.0
_KINDS = {"update_display": "update_display_data", "execute_result": "display_data"}

Content = dict[str, Any]
Message = dict[str, Any]

log = logging.getLogger("enginery.engine")


class Cell(NamedTuple):
    """Text that a front-end wants to have run."""

    number: int
    code: str
    silent: bool
    store_history: bool
    expressions: dict[str, str]


class CellEnd(NamedTuple):
    """What came of it. Of a failed one: the error's name, its text, and its traceback."""

    execution_count: int
    data: dict[str, Any] | None = None  # what the last expression is worth, by MIME type
    metadata: dict[str, Any] | None = None
    expressions: dict[str, Any] | None = None
    failure: tuple[str, str, list[str]] | None = None


class KernelHost(Protocol):
    """The engine, as a kernel sees it. Any thread may call this."""

    def visit(self, cell: Cell) -> None:
        """Run a cell as soon as no task runs, behind those that were asked for before."""

    def interrupt_visit(self) -> None:
        """Interrupt the cell that runs, if one does."""

    def shell(self) -> Any:
        """IPython's shell."""


class Kernel:
    """The thread and its sockets, from `start` to `close`."""

    def __init__(self, host: KernelHost, *, name: str, ip: str = "", ports: Mapping[str, int]) -> None:
        """Bind the sockets; raises OSError if that cannot be. `start` comes next."""
        self._host = host
        self._name = name
        self._session = Session(key=secrets.token_hex(32).encode())
        self._waker = Waker()
        self._sockets = KernelSockets(self._waker, ip=ip, ports=ports)
        self._outbox: deque[Callable[[], None]] = deque()
        self._is_closing = False
        self._next = 1
        self._asked: dict[int, tuple[list[bytes], Message]] = {}  # cells, by number, oldest first
        self._waiting: deque[Cell] = deque()  # not given to the engine yet: one runs at a time
        self._running: Cell | None = None
        self.file = ""
        self.info: Mapping[str, Any] = {}
        self._thread = threading.Thread(target=self._serve, name="enginery-kernel", daemon=True)

    def __repr__(self) -> str:
        return f"<Kernel at {self.file}>"

    # ------------------------------------------------------------ life

    def start(self) -> None:
        """Write the connection file and serve. Raises OSError if that cannot be."""
        try:
            self._write_file()
        except BaseException:
            self._let_go()
            raise
        self._thread.start()

    def close(self) -> None:
        """End the thread; its sockets and files go with it."""
        self._is_closing = True
        self._waker.wake()
        self._thread.join(JOIN_S)

    def _write_file(self) -> None:
        runtime = Path(jupyter_runtime_dir())
        runtime.mkdir(parents=True, exist_ok=True, mode=0o700)
        ports = self._sockets.ports
        self.file, self.info = write_connection_file(
            str(runtime / f"kernel-{self._name}-{os.getpid()}.json"),
            shell_port=ports["shell"],
            iopub_port=ports["iopub"],
            stdin_port=ports["stdin"],
            control_port=ports["control"],
            hb_port=ports["hb"],
            ip=self._sockets.ip,
            key=self._session.key,
            transport=self._sockets.transport,
        )

    def _let_go(self) -> None:
        self._sockets.close()
        if self.file:
            Path(self.file).unlink(missing_ok=True)

    # ------------------------------------------------------------ the engine's main thread, and others

    def on_begun(self, cell: Cell, count: int) -> None:
        """It runs, and counts as this one."""
        if not cell.silent:
            self._put(cell.number, "execute_input", {"code": cell.code, "execution_count": count})

    def on_ended(self, cell: Cell, end: CellEnd) -> None:
        self._outbox.append(partial(self._reply, cell, end))
        self._waker.wake()

    def write(self, number: int, stream: str, text: str) -> None:
        """A cell has written something; it may have ended."""
        self._put(number, "stream", {"name": stream, "text": text})

    def show(self, number: int, kind: str, content: bytes) -> None:
        """A cell displays something."""
        data, metadata, transient = unpack_display(content)
        if kind == "clear_output":
            self._put(number, kind, {"wait": bool(transient.get("wait"))})
            return
        shown = {"data": _in_json(data), "metadata": metadata, "transient": transient}
        self._put(number, _KINDS.get(kind, kind), shown)

    def _put(self, number: int, kind: str, content: Content) -> None:
        self._outbox.append(partial(self._publish_for, number, kind, content))
        self._waker.wake()

    # ------------------------------------------------------------ the thread

    def _serve(self) -> None:
        self._publish("status", {"execution_state": "starting"}, None)
        try:
            while not self._is_closing:
                for name, frames in self._sockets.received():
                    self._receive(name, frames)
                while self._outbox:
                    self._outbox.popleft()()
                self._begin_next()
        finally:
            self._let_go()

    def _receive(self, name: str, message_frames: list[bytes]) -> None:
        idents, frames = self._session.feed_identities(message_frames, copy=True)
        try:
            message = self._session.deserialize(frames, content=True)
            kind = message["header"]["msg_type"]
        except (ValueError, TypeError, KeyError) as error:
            log.warning("a message to the kernel was dropped: %s", error)
            return
        self._publish("status", {"execution_state": "busy"}, message)
        if kind == "execute_request":
            self._on_execute(idents, message)
            return
        answer = _ANSWERS.get(kind)
        if answer is not None:
            try:
                content = answer(self, message["content"])
            except Exception as error:  # noqa: BLE001 - completers and inspectors run code of the user's
                content = {"status": "error", "ename": type(error).__name__, "evalue": str(error)}
            self._session.send(
                self._sockets[name], kind.replace("_request", "_reply"), content, message, ident=idents
            )
        self._publish("status", {"execution_state": "idle"}, message)

    def _on_execute(self, idents: list[bytes], message: Message) -> None:
        content = message["content"]
        silent = bool(content.get("silent"))
        cell = Cell(
            self._next,
            str(content.get("code", "")),
            silent,
            bool(content.get("store_history", True)) and not silent,
            dict(content.get("user_expressions") or {}),
        )
        self._next += 1
        self._asked[cell.number] = idents, message
        while len(self._asked) > CELLS_KEPT + len(self._waiting):
            del self._asked[next(iter(self._asked))]
        self._waiting.append(cell)

    def _begin_next(self) -> None:
        if self._running is None and self._waiting:
            self._running = self._waiting.popleft()
            self._host.visit(self._running)

    def _reply(self, cell: Cell, end: CellEnd) -> None:
        self._running = None
        idents, message = self._asked[cell.number]
        if end.failure is None:
            if end.data:
                worth = {"data": _in_json(end.data), "metadata": end.metadata or {}}
                self._publish("execute_result", {"execution_count": end.execution_count, **worth}, message)
            content: Content = {"status": "ok", "payload": [], "user_expressions": end.expressions or {}}
        else:
            name, text, lines = end.failure
            content = {"status": "error", "ename": name, "evalue": text, "traceback": lines}
            if not cell.silent:
                self._publish("error", {"ename": name, "evalue": text, "traceback": lines}, message)
        content["execution_count"] = end.execution_count
        self._end_request(idents, message, content)
        if end.failure is not None and message["content"].get("stop_on_error", True):
            while has_come := list(self._sockets.received(wait=False)):
                for name, frames in has_come:
                    self._receive(name, frames)
            while self._waiting:  # what was asked for in the belief that this one would succeed
                aborted = self._asked[self._waiting.popleft().number]
                self._end_request(*aborted, {"status": "aborted", "execution_count": end.execution_count})

    def _end_request(self, idents: list[bytes], message: Message, content: Content) -> None:
        self._session.send(self._sockets["shell"], "execute_reply", content, message, ident=idents)
        self._publish("status", {"execution_state": "idle"}, message)

    def _publish_for(self, number: int, kind: str, content: Content) -> None:
        asked = self._asked.get(number)
        if asked is not None:
            self._publish(kind, content, asked[1])

    def _publish(self, kind: str, content: Content, parent: Message | None) -> None:
        self._session.send(self._sockets["iopub"], kind, content, parent, ident=kind.encode())

    # ------------------------------------------------------------ answers that need no main thread

    def _tell_info(self, content: Content) -> Content:
        import platform

        version = platform.python_version()
        return {
            "status": "ok",
            "protocol_version": PROTOCOL,
            "implementation": "enginery",
            "implementation_version": release.version,
            "language_info": {
                "name": "python",
                "version": version,
                "mimetype": "text/x-python",
                "codemirror_mode": {"name": "ipython", "version": 3},
                "pygments_lexer": "ipython3",
                "nbconvert_exporter": "python",
                "file_extension": ".py",
            },
            "banner": f"Python {version} in {self._name}; cells run between its tasks\n",
            "help_links": [],
        }

    def _complete(self, content: Content) -> Content:
        code, cursor = content["code"], content["cursor_pos"]
        with provisionalcompleter():
            completer = self._host.shell().Completer
            found = list(rectify_completions(code, completer.completions(code, cursor)))
        start, end = (found[0].start, found[0].end) if found else (cursor, cursor)
        matches = [one.text for one in found]
        return {
            "status": "ok",
            "matches": matches,
            "cursor_start": start,
            "cursor_end": end,
            "metadata": {},
        }

    def _inspect(self, content: Content) -> Content:
        name = token_at_cursor(content["code"], content["cursor_pos"])
        try:
            found = self._host.shell().object_inspect_mime(name, detail_level=content.get("detail_level", 0))
        except KeyError:
            found = {}
        return {"status": "ok", "found": bool(found), "data": found, "metadata": {}}

    def _is_complete(self, content: Content) -> Content:
        status, indent = self._host.shell().input_transformer_manager.check_complete(content["code"])
        return {"status": status, "indent": " " * (indent or 0)}

    def _tell_history(self, content: Content) -> Content:
        return {"status": "ok", "history": []}

    def _tell_comms(self, content: Content) -> Content:
        return {"status": "ok", "comms": {}}

    def _tell_ports(self, content: Content) -> Content:
        return {"status": "ok", **{f"{name}_port": port for name, port in self._sockets.ports.items()}}

    def _interrupt(self, content: Content) -> Content:
        self._host.interrupt_visit()
        return {"status": "ok"}

    def _refuse_to_shut_down(self, content: Content) -> Content:
        """Front-ends come and go; engines are ended by their cluster."""
        return {"status": "ok", "restart": False}


_ANSWERS: dict[str, Callable[[Kernel, Content], Content]] = {
    "kernel_info_request": Kernel._tell_info,
    "complete_request": Kernel._complete,
    "inspect_request": Kernel._inspect,
    "is_complete_request": Kernel._is_complete,
    "history_request": Kernel._tell_history,
    "comm_info_request": Kernel._tell_comms,
    "connect_request": Kernel._tell_ports,
    "interrupt_request": Kernel._interrupt,
    "shutdown_request": Kernel._refuse_to_shut_down,
}


def _in_json(data: Mapping[str, Any]) -> dict[str, Any]:
    """A display as it travels in JSON."""
    return {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for name, value in data.items()
    }
