"""The raw limit: a 0MQ ping-pong over the same hops as a task, client to router to engine and back.

Three Python processes, DEALER - ROUTER - DEALER, 100 bytes back for each message sent, no CURVE, no records:
all that a system on 0MQ adds to this is its own work.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from benchmarks.catalogue import RAW
from benchmarks.harness import Sample, System, time_calls, time_import
from benchmarks.workloads.bodies import TASKS

MESSAGE = b"x" * 100
ARGUMENT = b"x" * 64 * 1024
NOTE = "messages only, nothing batched"

over_ipc = System(RAW, package="zmq")
over_tcp = System("raw 0MQ, routed, tcp", package="zmq")
SYSTEMS = [over_ipc, over_tcp]


def route(address: str) -> None:
    """The process in the middle: hands each message to the other side. The engine's first one is empty."""
    import zmq

    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.set_hwm(0)  # or messages beyond the mark are dropped in silence
        router.bind(address)
        print(router.get_string(zmq.LAST_ENDPOINT), flush=True)
        client = engine = b""
        while True:
            sender, message = router.recv_multipart()
            if not message:
                engine = sender
                print("complete", flush=True)
            elif sender == engine:
                router.send_multipart([client, message])
            else:
                client = sender
                router.send_multipart([engine, message])


def echo(address: str) -> None:
    """The process at the end."""
    import zmq

    with zmq.Context() as context, context.socket(zmq.DEALER) as engine:
        engine.set_hwm(0)
        engine.connect(address)
        engine.send(b"")
        while True:
            engine.send(engine.recv()[: len(MESSAGE)])


@contextmanager
def start(role: str, address: str) -> Iterator[IO[str]]:
    """One of the processes, by what it says."""
    command = [sys.executable, "-m", "benchmarks.workloads.raw_zmq", role, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout
        finally:
            process.kill()


@contextmanager
def connect(bound: str) -> Iterator[Any]:
    import zmq

    with start("route", bound) as router:
        address = router.readline().strip()
        with start("echo", address), zmq.Context() as context, context.socket(zmq.DEALER) as client:
            router.readline()  # the engine's route is known
            client.set_hwm(0)
            client.set(zmq.LINGER, 0)
            client.set(zmq.RCVTIMEO, 20_000)
            client.connect(address)
            yield client


@contextmanager
def ipc_session() -> Iterator[Any]:
    with tempfile.TemporaryDirectory() as directory, connect(f"ipc://{directory}/s") as client:
        yield client


@contextmanager
def tcp_session() -> Iterator[Any]:
    with connect("tcp://127.0.0.1:*") as client:
        yield client


over_ipc.session = ipc_session
over_tcp.session = tcp_session


@over_ipc.measures("round_trip_one")
@over_ipc.measures("round_trip_balanced")
@over_tcp.measures("round_trip_one")
def round_trip(client: Any) -> float:
    def call() -> None:
        client.send(MESSAGE)
        client.recv()

    return time_calls(call)


@over_ipc.measures("small_argument")
def small_argument(client: Any) -> float:
    def call() -> None:
        client.send(ARGUMENT)
        client.recv()

    return time_calls(call)


@over_ipc.measures("single_tasks")
@over_tcp.measures("single_tasks")
def single_tasks(client: Any) -> Sample:
    began = time.perf_counter()
    for _ in range(TASKS):
        client.send(MESSAGE)
    for _ in range(TASKS):
        client.recv()
    return Sample(TASKS / (time.perf_counter() - began), NOTE)


@over_ipc.measures_alone("import")
def import_it() -> float:
    return time_import("import zmq")


if __name__ == "__main__":
    {"route": route, "echo": echo}[sys.argv[1]](sys.argv[2])
