"""IPython in a terminal, as a person sees it: tmux types the keys and reads the screen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.shared import until

if shutil.which("tmux") is None and os.environ.get("ENGINERY_TEST_REQUIRE") != "browser":
    pytest.skip("needs tmux; see `scripts/test browser`", allow_module_level=True)

ROOT = Path(__file__).parents[2]
PATIENCE_S = 20.0


class Terminal:
    """A terminal of 100 columns and 40 lines with IPython in it."""

    def __init__(self, directory: Path) -> None:
        self._socket = str(directory / "tmux")
        shell = f"{sys.executable} -m IPython --simple-prompt --no-banner --colors=NoColor"
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "src"),
            "IPYTHONDIR": str(directory / "ipython"),
        }
        environment.pop("TMUX", None)
        command = ["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "40", shell]
        subprocess.run(["tmux", "-S", self._socket, *command], env=environment, check=True)

    def tmux(self, *command: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, *command], check=True, capture_output=True, text=True
        )
        return done.stdout

    def type(self, line: str) -> None:
        self.tmux("send-keys", "-l", line)
        self.tmux("send-keys", "Enter")

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p")

    def see(self, condition: Callable[[str], object]) -> str:
        """The screen, as soon as that holds for it."""
        seen = ""

        def look() -> bool:
            nonlocal seen
            seen = self.screen()
            return bool(condition(seen))

        try:
            until(look, patience_s=PATIENCE_S)
        except AssertionError:
            pytest.fail(f"it is not on the screen:\n{seen}")
        return seen

    def close(self) -> None:
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], check=False, capture_output=True)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path)
    try:
        terminal.see(lambda screen: "In [1]:" in screen)
        terminal.type(
            "import enginery as ipp; cluster = ipp.Cluster(n=2); rc = cluster.start_and_connect_sync()"
        )
        terminal.see(lambda screen: "In [2]:" in screen)
        yield terminal
        terminal.type("cluster.stop_cluster_sync(); print('st' + 'opped')")
        terminal.see(lambda screen: "stopped" in screen)
    finally:
        terminal.close()


def test_magics_bars_and_ctrl_c(terminal: Terminal) -> None:
    terminal.type("%px import os, time; rank = os.environ['ENGINERY_ENGINE_ID']; print('engine', rank)")
    screen = terminal.see(lambda screen: "In [3]:" in screen)
    assert "[stdout:0] engine 0" in screen
    assert "[stdout:1] engine 1" in screen

    terminal.type("%px 6 * 7")
    assert "Out[0,1:2]: 42" in terminal.see(lambda screen: "In [4]:" in screen)

    terminal.type("def slow(x): import time; time.sleep(0.05); return x")
    terminal.type("")
    terminal.type("sum(rc.load_balanced_view().map(slow, range(60), chunksize=1, progress=True))")
    terminal.see(lambda screen: "/60 items" in screen)
    screen = terminal.see(lambda screen: "1770" in screen)
    assert "slow: 100%" in screen
    assert screen.count("60/60 items") == 1, "one bar, in one place"

    terminal.type("%px print('begun'); time.sleep(600)")
    terminal.see(lambda screen: "] begun" in screen)
    terminal.tmux("send-keys", "C-c")
    terminal.see(lambda screen: "KeyboardInterrupt" in screen)
    terminal.type("%px rank")
    terminal.see(lambda screen: "Out[0:" in screen and "'1'" in screen)

    terminal.type("rc")
    assert "2 engines" in terminal.see(lambda screen: "<Client of" in screen)
