"""An engine process, from its start record to its exit code."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import platform
from pathlib import Path

from enginery.engine.past_python import leave_input, unbuffer
from enginery.engine.service import Engine
from enginery.errors import EngineryError
from enginery.ids import engine_pool
from enginery.protocol.specs import EngineSpec
from enginery.transport.channel import Role
from enginery.transport.connection_file import ConnectionInfo, load
from enginery.transport.dialling import ChannelFactory
from enginery.transport.sharing import Sharing


def run_engine(spec: EngineSpec, *, version: str) -> int:
    """Serve until told to stop. Returns the exit code. The process is the engine's alone."""
    leave_input()
    unbuffer()
    faulthandler.enable(os.dup(2), all_threads=False)  # a copy: tasks can close the other one
    info = load(spec.connection_file)
    factory = ChannelFactory(info)
    sharing = Sharing.join(
        info.shared, info.host_proof, engine_pool(spec.key), limit_bytes=info.shared_limit_bytes
    )
    if not sharing.reads:
        sharing = Sharing.read_only(spec.host_shared, spec.host_key)
    try:
        engine = Engine(
            spec,
            version=version,
            host=platform.node(),
            channel=factory.dial(),
            control=factory.dial(),
            sharing=sharing,
            find_client_file=lambda: _find_client_file(spec, info),
        )
        return engine.run()
    finally:
        factory.close()


def _find_client_file(spec: EngineSpec, info: ConnectionInfo) -> str:
    """The file with which code on this engine can be a client of its cluster; empty if it is not known."""
    directory = info.directory if info.is_same_host() else Path(spec.connection_file).absolute().parent
    path = Path(directory) / f"{Role.CLIENT.value}.json"
    with contextlib.suppress(EngineryError, OSError):
        if load(path).server_key == info.server_key:
            return str(path)
    return ""
