"""What the platform takes: bare interpreters and forks to start processes, memcpy to move arrays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.catalogue import MEMCPY
from benchmarks.harness import System, time_import
from benchmarks.transfers import Array, Moves, new_array, register_moves
from benchmarks.workloads.bodies import held

interpreter = System("bare interpreter")
fork = System("fork")
memcpy = System(MEMCPY, package="numpy")
SYSTEMS = [interpreter, fork, memcpy]


@interpreter.measures_alone("import")
def import_nothing() -> float:
    return time_import("pass")


def start_interpreters(count: int) -> float:
    """All started side by side; the time until each has said a word."""
    began = time.perf_counter()
    processes = [
        subprocess.Popen([sys.executable, "-c", "print('up')"], stdout=subprocess.PIPE) for _ in range(count)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    elapsed_s = time.perf_counter() - began
    for process in processes:
        process.communicate()
    return elapsed_s


@interpreter.measures_alone("start_2")
def start_2() -> float:
    return start_interpreters(2)


@interpreter.measures_alone("start_16")
def start_16() -> float:
    return start_interpreters(16)


def start_forks(count: int) -> float:
    """The same with forks of this process."""
    began = time.perf_counter()
    reading, writing = os.pipe()
    children = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            os.write(writing, b".")
            os._exit(0)
        children.append(child)
    answers = 0
    while answers < count:
        answers += len(os.read(reading, count))
    elapsed_s = time.perf_counter() - began
    for child in children:
        os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)
    return elapsed_s


@fork.measures_alone("start_2")
def fork_2() -> float:
    return start_forks(2)


@fork.measures_alone("start_16")
def fork_16() -> float:
    return start_forks(16)


class Copies(Moves):
    """One copy by one thread into memory that is there already, in one process, and nobody is told."""

    def __init__(self, _: None) -> None:
        self.room = new_array(1)

    def copy(self, array: Array) -> Array:
        import numpy

        if self.room.nbytes != array.nbytes:
            self.room = new_array(array.nbytes)
        numpy.copyto(self.room, array)
        return self.room

    def push(self, array: Array) -> None:
        self.copy(array)

    def hold(self, size_bytes: int) -> None:
        self.own = held(size_bytes)

    def pull(self) -> Array:
        return self.copy(self.own)

    def call(self, array: Array) -> None:
        self.copy(array)

    def fetch(self, size_bytes: int) -> Array:
        return self.copy(held(size_bytes))

    def scatter_gather(self, array: Array) -> Array:
        """Once there and, as engines and client have memory of their own, once back into a third place."""
        return self.copy(array).copy()


@contextmanager
def no_session() -> Iterator[None]:
    yield


memcpy.session = no_session
register_moves(memcpy, Copies)
