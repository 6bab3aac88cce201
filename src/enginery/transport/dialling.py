"""Dialling the controller, and the peers' side over 0MQ.

Which way is taken is decided by proof: where the proof file of the cluster can be read on this machine, the
lane or the ipc endpoint next to it can be reached, else TCP with CURVE.

A forked child shares the parent's descriptors, without 0MQ's thread. Whatever it did to them would disturb
the parent, so a channel refuses to work there, and its sockets are held on to so that nothing closes them.
"""

from __future__ import annotations

import math
import os
import select
import time
import weakref
from collections.abc import Sequence

import zmq

from enginery.errors import ForkedClientError
from enginery.protocol.codec import Buffer
from enginery.transport.channel import NO_FILE, HasFileno
from enginery.transport.connection_file import ConnectionInfo
from enginery.transport.keys import RoleCredentials
from enginery.transport.lane import lane_address, lane_is_supported
from enginery.transport.lane_channel import LaneChannel
from enginery.transport.sockets import (
    EVENTS,
    HAS_MORE,
    LAST,
    READABLE,
    Context,
    check_sizes,
    drop_rest,
    open_dealer,
    raw_option,
    receive_frames,
    send_parts,
)

_process = os.getpid()
_open: weakref.WeakSet[ZmqChannel | ChannelFactory] = weakref.WeakSet()
_inherited: list[object] = []
"""In a forked child: what belongs to its parent and must never be closed here."""


def dial(info: ConnectionInfo, *, same_host: bool | None = None) -> ZmqChannel | LaneChannel:
    """Dial the controller with a Context of the channel's own.

    `same_host` False takes TCP, True takes the lane or else ipc, None decides by the proof file.
    """
    factory = ChannelFactory(info, same_host=same_host)
    try:
        return factory.dial(owned=True)
    except BaseException:
        factory.close()
        raise


class ChannelFactory:
    """Dials any number of channels; those over 0MQ share one Context, and so one thread.

    `close` ends the Context: close the channels first.
    """

    def __init__(self, info: ConnectionInfo, *, same_host: bool | None = None) -> None:
        near = info.is_same_host() if same_host is None else same_host
        self.address = info.ipc if near and info.ipc else info.tcp[0]
        self._lane = info.lane if near and lane_is_supported() and os.path.exists(info.lane) else ""
        if self._lane:
            self.address = lane_address(self._lane)
        self._credentials = info.credentials()
        self._context: Context | None = None if self._lane else zmq.Context()
        self._process = _process
        _open.add(self)

    def __repr__(self) -> str:
        return f"<ChannelFactory to {self.address}>"

    def dial(self, *, owned: bool = False) -> ZmqChannel | LaneChannel:
        """A new channel; with `owned`, closing it closes this factory."""
        if self._process != _process:
            raise ForkedClientError(self._process, _process)
        if self._context is None:
            return LaneChannel(self._credentials, self._lane)
        return ZmqChannel(self._context, self._credentials, self.address, factory=self if owned else None)

    def close(self) -> None:
        """End the Context. Repeating it does nothing."""
        if self._process == _process and self._context is not None and not self._context.closed:
            self._context.term()
            _open.discard(self)


class ZmqChannel:
    """A `Channel` over 0MQ; see `dial`."""

    def __init__(
        self, context: Context, credentials: RoleCredentials, address: str, *, factory: ChannelFactory | None
    ) -> None:
        self._context = context
        self._credentials = credentials
        self._address = address
        self._factory = factory
        self._process = _process
        self._broken = False
        self._closed = False
        self._socket = open_dealer(context, credentials, address)
        self._descriptor = int(self._socket.getsockopt(zmq.FD))
        _open.add(self)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "broken" if self._broken else "open"
        return f"<ZmqChannel {self._credentials.role.value} to {self._address}, {state}>"

    @property
    def broken(self) -> bool:
        return self._broken

    @property
    def address(self) -> str:
        return self._address

    def fileno(self) -> int:
        return self._descriptor

    def send(self, header: Buffer, frames: Sequence[Buffer] = ()) -> bool:
        if self._process != _process:
            raise ForkedClientError(self._process, _process)
        if self._broken:
            return False
        check_sizes(header, frames)
        whole = False
        try:
            send_parts(self._socket, header, frames)
            whole = True
        except zmq.Again:
            # Only a first part is ever refused: nothing was sent.
            whole = True
            return False
        finally:
            if not whole:
                self._broken = True
        return True

    def receive(self) -> tuple[Buffer, list[Buffer]] | None:
        if self._process != _process:
            raise ForkedClientError(self._process, _process)
        if self._descriptor == NO_FILE:  # closed, or a redial that Ctrl-C ended half-way
            return None
        if not raw_option(self._socket, EVENTS) & READABLE:  # cheaper than being told by an exception
            return None
        try:
            # The header is copied: while pyzmq frees a frame that is not, it swallows Ctrl-C.
            header = self._socket.recv(LAST)
            more = raw_option(self._socket, HAS_MORE)
            return header, receive_frames(self._socket) if more else []
        except zmq.Again:
            return None
        except BaseException:
            # Ctrl-C between two parts: the rest must not be taken for the next message.
            self._broken = True
            drop_rest(self._socket)
            raise

    def pending(self) -> bool:
        if self._process != _process:
            raise ForkedClientError(self._process, _process)
        if self._descriptor == NO_FILE:
            return False
        return bool(raw_option(self._socket, EVENTS) & READABLE)

    def wait(self, timeout_s: float | None, wakers: Sequence[HasFileno] = ()) -> bool:
        if self.pending():
            return True
        if self._descriptor == NO_FILE:
            return False
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        for waker in wakers:
            poll.register(waker.fileno(), select.POLLIN)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_ms = None
            if deadline is not None:
                left_ms = max(0, math.ceil((deadline - time.monotonic()) * 1000))
            events = poll.poll(left_ms)
            # The descriptor also tells of connections made and messages sent: then there is more to wait for.
            if self.pending():
                return True
            if not events or any(descriptor != self._descriptor for descriptor, _ in events):
                return False

    def redial(self) -> None:
        if self._process != _process:
            raise ForkedClientError(self._process, _process)
        if self._closed:
            return
        self._broken = True
        self._descriptor = NO_FILE
        self._socket.close(linger=0)
        self._socket = open_dealer(self._context, self._credentials, self._address)
        self._descriptor = int(self._socket.getsockopt(zmq.FD))
        self._broken = False

    def close(self, linger_s: float = 0.0) -> None:
        if self._closed or self._process != _process:
            return
        self._closed = self._broken = True
        self._descriptor = NO_FILE
        self._socket.close(linger=max(0, round(linger_s * 1000)))
        if self._factory is not None:
            self._factory.close()
        _open.discard(self)


def _keep_inherited() -> None:
    global _process
    _process = os.getpid()
    for owner in list(_open):
        _inherited.extend(vars(owner).values())
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_inherited)
