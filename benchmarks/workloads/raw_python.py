"""What the platform takes for starting processes: bare interpreters, bare forks."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from benchmarks.harness import System, time_import

interpreter = System("bare interpreter")
fork = System("fork")
SYSTEMS = [interpreter, fork]


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
