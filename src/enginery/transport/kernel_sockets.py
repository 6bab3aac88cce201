"""The five sockets of a Jupyter kernel, for the thread that serves it.

In a private directory, or on an interface: these are the front-ends' kinds of socket and addresses, and have
nothing in common with the cluster's but 0MQ.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping

import zmq

from enginery.transport.channel import Waker

NAMES = ("shell", "iopub", "stdin", "control", "hb")
LINGER_MS = 500
_KINDS = {"iopub": zmq.PUB, "hb": zmq.REP}


class KernelSockets:
    """Bound when made: to `ip`, with these ports or chosen ones, or without it in a directory of mode 0700.

    Raises OSError if one cannot be bound. `waker` ends a wait; it is closed with the sockets.
    """

    def __init__(self, waker: Waker, *, ip: str = "", ports: Mapping[str, int] | None = None) -> None:
        self._waker = waker
        self._context = zmq.Context()
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        self._directory = "" if ip else tempfile.mkdtemp(prefix="enginery-kernel-")
        self.transport = "tcp" if ip else "ipc"
        self.ip = ip or f"{self._directory}/k"
        self.ports: dict[str, int] = {}
        try:
            for number, name in enumerate(NAMES, start=1):
                self.ports[name] = self._bind(name, (ports or {}).get(name, 0) if ip else number)
        except BaseException:
            self.close()
            raise
        self._poller = zmq.Poller()
        for name in ("shell", "control", "hb"):
            self._poller.register(self._sockets[name], zmq.POLLIN)
        self._poller.register(waker.fileno(), zmq.POLLIN)

    def __repr__(self) -> str:
        return f"<KernelSockets {self.transport}://{self.ip}>"

    def __getitem__(self, name: str) -> zmq.Socket[bytes]:
        return self._sockets[name]

    def _bind(self, name: str, port: int) -> int:
        socket = self._sockets[name] = self._context.socket(_KINDS.get(name, zmq.ROUTER))
        socket.linger = LINGER_MS
        try:
            if self._directory:
                socket.bind(f"ipc://{self.ip}-{port}")
            elif port:
                socket.bind(f"tcp://{self.ip}:{port}")
            else:
                port = socket.bind_to_random_port(f"tcp://{self.ip}")
        except zmq.ZMQError as error:
            raise OSError(error.errno, f"the kernel's {name} socket cannot be bound: {error}") from error
        return port

    def received(self, *, wait: bool = True) -> Iterator[tuple[str, list[bytes]]]:
        """Wait for messages or the waker; what has come on the shell's and the control's socket, one of each.

        Heartbeats are answered here.
        """
        for ready, _ in self._poller.poll(None if wait else 0):
            if not isinstance(ready, zmq.Socket):
                self._waker.clear()
            elif ready is self._sockets["hb"]:
                ready.send(ready.recv())
            else:
                name = "shell" if ready is self._sockets["shell"] else "control"
                yield name, ready.recv_multipart()

    def close(self) -> None:
        for socket in self._sockets.values():
            socket.close()
        self._context.term()
        self._waker.close()
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)
