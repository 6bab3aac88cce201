"""Binding a server socket, and the addresses under which peers may reach it."""

from __future__ import annotations

import os
import socket as sockets_of_system

import zmq

from enginery.errors import LaunchError
from enginery.transport.sockets import Socket

_ALL_IPV4 = "0.0.0.0"
_ALL_IPV6 = "::"


def resolve(host: str) -> str:
    """The numeric address of a host name; ``"*"`` is all interfaces. Raises LaunchError if there is none."""
    if host in ("*", ""):
        return _ALL_IPV4
    try:
        found = sockets_of_system.getaddrinfo(host, None, type=sockets_of_system.SOCK_STREAM)
    except OSError as error:
        raise LaunchError("the controller", f"there is no address for host {host!r}: {error}") from None
    return str(found[0][4][0])


def bind_tcp(socket: Socket, ip: str, port: int) -> int:
    """Bind and return the port; 0 takes any that is free."""
    bind(socket, tcp_address(ip, port or "*"), what=f"port {port} of {ip}")
    endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
    return int(endpoint.rstrip("\0").rpartition(":")[2])


def bind(socket: Socket, address: str, *, what: str) -> None:
    """Bind; raises LaunchError with the reason that the system gives."""
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        reason = os.strerror(error.errno) if error.errno is not None else str(error)
        raise LaunchError("the controller", f"{what} cannot be bound: {reason}") from None


def tcp_address(ip: str, port: int | str) -> str:
    """Put an address the way 0MQ wants it.

    >>> tcp_address("::1", 5000)
    'tcp://[::1]:5000'
    """
    return f"tcp://[{ip}]:{port}" if ":" in ip else f"tcp://{ip}:{port}"


def reachable(ip: str) -> list[str]:
    """The addresses at which peers can try to reach a socket that is bound to `ip`."""
    if ip not in (_ALL_IPV4, _ALL_IPV6):
        return [ip]
    import psutil

    families = {sockets_of_system.AF_INET}
    if ip == _ALL_IPV6:
        families.add(sockets_of_system.AF_INET6)
    found = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in families and "%" not in entry.address
    ]
    # Loopback last: on another machine it is somebody else.
    return sorted(found, key=lambda address: address.startswith("127.") or address == "::1")
