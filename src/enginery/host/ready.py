"""The ready line: from the controller, past the parent of all processes, to whoever started the host.

The parent reads it on the way, so it knows when the connection files are there, and can say in the
controller's place why there will never be any.
"""

from __future__ import annotations

import contextlib
import os

import msgspec

from enginery.protocol.specs import Ready
from enginery.transport.channel import NO_FILE

_LIMIT_BYTES = 1 << 16


class ReadyLine:
    """Passes one line from a pipe of ours to the descriptor of whoever waits, and closes both."""

    def __init__(self, waiting_fd: int) -> None:
        self._waiting_fd = waiting_fd
        self._read_fd = NO_FILE
        self._data = b""
        self.passed = False

    def __repr__(self) -> str:
        return f"<ReadyLine{' passed' if self.passed else ''}>"

    def open(self) -> int:
        """Make the pipe and return the end to write to; the caller closes it."""
        self._read_fd, write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        return write_fd

    def fileno(self) -> int:
        return self._read_fd

    def receive(self) -> bool:
        """Take what is there; True when the line has been passed on just now and tells of success."""
        try:
            chunk = os.read(self._read_fd, 4096)
        except BlockingIOError:
            return False
        self._data += chunk
        line, newline, _ = self._data.partition(b"\n")
        if newline or len(self._data) > _LIMIT_BYTES:
            self._pass(line + b"\n")
            return _is_success(line)
        if not chunk:  # whoever holds the other end has closed it without a line; its death will say more
            self._close_pipe()
        return False

    def say(self, ready: Ready) -> None:
        """Say it ourselves, unless something has been said."""
        if not self.passed:
            self._pass(ready.to_json().encode() + b"\n")

    def close(self) -> None:
        """Close both descriptors. Repeating it does nothing."""
        self._close_pipe()
        if self._waiting_fd != NO_FILE:
            os.close(self._waiting_fd)
            self._waiting_fd = NO_FILE

    def _pass(self, line: bytes) -> None:
        self.passed = True
        if self._waiting_fd != NO_FILE:
            with contextlib.suppress(BrokenPipeError):  # whoever waited has gone
                os.write(self._waiting_fd, line)
        self.close()

    def _close_pipe(self) -> None:
        if self._read_fd != NO_FILE:
            os.close(self._read_fd)
            self._read_fd = NO_FILE


def _is_success(line: bytes) -> bool:
    try:
        return not msgspec.json.decode(line, type=Ready).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
