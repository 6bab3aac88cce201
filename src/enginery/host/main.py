"""A host, from its start record to its exit code."""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable

from enginery.errors import ClusterAlreadyRunning, LaunchError
from enginery.host.entries import Entries
from enginery.host.files import clean_up, prepare
from enginery.host.handing_on import begin_sharing
from enginery.host.orders import Inheritance
from enginery.host.parent import Parent
from enginery.host.processes import adopt_orphans, set_title
from enginery.host.ready import ReadyLine
from enginery.host.starters import ProcessStarter, SpawnStarter
from enginery.host.supervisor import Supervisor, first_engines
from enginery.host.zygote import HOST_LOG, ForkedChild, ForkStarter, redirect_output
from enginery.ids import HostKey, new_key
from enginery.protocol.specs import HostSpec, Ready

log = logging.getLogger("enginery.host")


def run_host(spec: HostSpec, entries: Entries) -> int:
    """Start a host and return, when all its processes have ended, its exit code.

    With ``start_method="fork"`` it also returns in every forked child, with that one's exit code: the caller
    is to leave the interpreter with it at once. Must be called in the main thread.
    """
    logs = spec.path("logs")
    try:
        name_fd = prepare(spec)
    except (ClusterAlreadyRunning, LaunchError, OSError) as error:
        _refuse(spec, error)
        return 1
    redirect_output(logs / HOST_LOG)
    set_title(f"enginery: host {spec.cluster}")
    adopt_orphans()
    host_key = HostKey(new_key())
    shared = begin_sharing(spec, host_key)
    shared_path = "" if shared is None else str(shared.path)
    engines = first_engines(spec, host_key, shared=shared_path)
    starter: ProcessStarter
    if spec.start_method == "fork":
        starter = ForkStarter(entries, cluster=spec.cluster, logs=logs)
    else:
        starter = SpawnStarter(entries.program, logs)
    secret = secrets.token_bytes(16)  # of all supervisors that this host will have

    def run_supervisor(end: socket.socket, inheritance: Inheritance) -> int:
        return Supervisor(
            spec, host_key=host_key, secret=secret, end=end, inheritance=inheritance, shared=shared_path
        ).run()

    parent = Parent(spec, starter, run_supervisor, name_fd=name_fd)
    become: Callable[[], int]
    try:
        code = parent.run(engines)
    except ForkedChild as child:
        become = child.become
        parent.let_go(keep_name=child.keeps_name)
        if shared is not None and not child.keeps_name:
            shared.abandon()
    else:
        parent.finish()
        clean_up(spec, has_failed=parent.has_failed)
        if shared is not None:
            shared.close()
        parent.release_name()
        return code
    # Here, with the frames of the parent's loop gone, a child begins.
    return become()


def _refuse(spec: HostSpec, error: Exception) -> None:
    log.error("%s", error)
    ready = ReadyLine(spec.ready_fd)
    ready.say(Ready(error=str(error)))
    ready.close()
