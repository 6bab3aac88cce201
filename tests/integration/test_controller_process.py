"""What a controller process leaves when it cannot start."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from enginery.controller.main import run_controller
from enginery.protocol.specs import ControllerSpec
from enginery.transport import sharing


def test_a_controller_whose_port_is_taken_leaves_no_shared_memory(runtime_directory: Path) -> None:
    directory = runtime_directory / "taken"
    directory.mkdir(mode=0o700)
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            spec = ControllerSpec(cluster="taken", directory=str(directory), port=port, database="memory")
            with pytest.raises(Exception, match="in use"):
                run_controller(spec, version="1")
        assert not sharing.shared_path(directory).exists()
    finally:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()
