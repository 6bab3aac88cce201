"""What tests of shared memory look at, and what they send."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

import enginery as ipp
from enginery.transport import sharing

PATIENCE_S = 20.0
MIB = 1 << 20


def shared_of(rc: ipp.Client) -> Path:
    """The directory of a cluster's shared memory."""
    return sharing.shared_path(Path(rc.connection_file).parent)


def segments_of(rc: ipp.Client) -> list[str]:
    """The segments that there are, as pool/name."""
    shared = shared_of(rc)
    return sorted(str(path.relative_to(shared)) for path in shared.glob("*/[0-9]*"))


def until(condition: Callable[[], object], *, patience_s: float = PATIENCE_S) -> None:
    """Look until it holds: it happens in other processes, which do not tell."""
    deadline = time.monotonic() + patience_s
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it does not come true"
        tick.wait(0.01)


def altered(rc: ipp.Client, path: Path, role: str = "client", **fields: Any) -> str:
    """A copy of the cluster's connection file for a role that says something else."""
    content = json.loads((Path(rc.connection_file).parent / f"{role}.json").read_bytes())
    path.write_text(json.dumps({**content, **fields}))
    path.chmod(0o600)
    return str(path)


def pattern(size_bytes: int, seed: int = 1) -> numpy.ndarray[Any, Any]:
    return numpy.random.default_rng(seed).integers(0, 256, size_bytes, dtype="u1")


def checksum(array: Any) -> int:
    import zlib

    return zlib.crc32(array)


class Program:
    """A client in a process of its own, which is told by lines and tells by lines."""

    def __init__(self, text: str, *arguments: object) -> None:
        program = f"import sys\nimport numpy\nimport enginery as ipp\n{textwrap.dedent(text)}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def end(self) -> None:
        self.process.communicate(timeout=PATIENCE_S)
