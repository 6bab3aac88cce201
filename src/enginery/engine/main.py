"""An engine process, from its start record to its exit code."""

from __future__ import annotations

import platform

from enginery.engine.service import Engine
from enginery.protocol.specs import EngineSpec
from enginery.transport.connection_file import load
from enginery.transport.dialling import ChannelFactory


def run_engine(spec: EngineSpec, *, version: str) -> int:
    """Serve until told to stop. Returns the exit code."""
    info = load(spec.connection_file)
    factory = ChannelFactory(info)
    try:
        engine = Engine(
            spec, version=version, host=platform.node(), channel=factory.dial(), control=factory.dial()
        )
        return engine.run()
    finally:
        factory.close()
