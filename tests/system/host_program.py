"""The program of `test_host`: a host whose controller and engines do next to nothing.

``host_program.py host NAME --spec -``; where the host cannot fork, ``controller`` and ``engine`` likewise.
What engine N does says the word behind ``N=`` in ENGINERY_TEST_ENGINES.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from types import FrameType

import msgspec

from enginery.host.entries import Entries
from enginery.host.main import run_host
from enginery.ids import TaskId
from enginery.observe.logs import set_up_logging
from enginery.protocol.marks import Mark, Marks
from enginery.protocol.specs import ControllerSpec, EngineSpec, HostSpec, Ready
from enginery.transport.status_page import StatusPage


def leave(signum: int, frame: FrameType | None) -> None:
    sys.exit(0)


def wait_for_signal() -> None:
    signal.signal(signal.SIGTERM, leave)
    while True:
        signal.pause()


def run_controller(spec: ControllerSpec) -> int:
    behaviour = os.environ.get("ENGINERY_TEST_CONTROLLER", "")
    if behaviour == "fails":
        print("the port is taken")
        return 5
    os.write(spec.ready_fd, Ready().to_json().encode() + b"\n")
    os.close(spec.ready_fd)
    wait_for_signal()
    return 0


def run_engine(spec: EngineSpec) -> int:
    words = dict(entry.split("=") for entry in os.environ.get("ENGINERY_TEST_ENGINES", "").split())
    behaviour = words.get(str(spec.wanted), "waits")
    page = StatusPage.create(spec.status_page)
    page.start(TaskId(100 + spec.wanted))
    page.start(TaskId(200 + spec.wanted))
    print("engine", spec.wanted, "says", os.environ.get("OMP_NUM_THREADS"), sys.stdin.read(), flush=True)
    if behaviour == "exits":
        return 3
    if behaviour == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            signal.pause()
    if behaviour == "speaks-and-waits":
        speak(spec, b"early\n", number=1, attempt=1)
    if behaviour == "answers":
        signal.signal(signal.SIGUSR1, lambda signum, frame: speak(spec, b"yes\n", number=1, attempt=1))
    if behaviour in ("breeds", "speaks-and-breeds"):
        # A grandchild in a session of its own, orphaned at once.
        script = "import os, signal; os.setsid(); os.fork() and os._exit(0); signal.pause()"
        subprocess.run([sys.executable, "-c", script], check=True)
    if behaviour in ("speaks", "speaks-and-breeds"):
        speak(spec, b"marked\n", number=7, attempt=2)
        os.write(2, "last é\n".encode())
        page.last_words.keep(TaskId(200 + spec.wanted), 2, 0, "python\n")
        os.kill(os.getpid(), signal.SIGKILL)
    wait_for_signal()
    return 0


def speak(spec: EngineSpec, text: bytes, *, number: int, attempt: int) -> None:
    """Write past Python for the newest task."""
    os.write(1, text + Marks(spec.key).encode(Mark(TaskId(200 + spec.wanted), attempt, number)))


def main() -> int:
    set_up_logging()
    role, _, _, _ = sys.argv[1:]
    spec = sys.stdin.readline()
    if role == "controller":
        return run_controller(msgspec.json.decode(spec, type=ControllerSpec))
    if role == "engine":
        return run_engine(msgspec.json.decode(spec, type=EngineSpec))
    if "ENGINERY_TEST_SECOND_THREAD" in os.environ:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    entries = Entries(run_controller, run_engine, program=(sys.executable, __file__))
    return run_host(msgspec.json.decode(spec, type=HostSpec), entries)


if __name__ == "__main__":
    sys.exit(main())
