"""For all tests: a private runtime directory, reproducible hypothesis, and proof that nothing is left behind.

Clusters that tests start live under a directory of this run alone, with a short path: a local endpoint's path
may have 107 bytes. After each test module no process, thread, 0MQ context, file or shared memory of it may be
left; a cluster with a name keeps its history by design, so a test that names one also removes it.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.leftovers import Ground

_SHORT = Path("/tmp")
_directory = Path(tempfile.mkdtemp(prefix="eng-", dir=_SHORT if _SHORT.is_dir() else None)).resolve()
# Before any test module is imported: some read it once.
os.environ["ENGINERY_RUNTIME_DIR"] = str(_directory)
_ground = Ground(_directory)

# A shell starts what it runs in the background with SIGINT ignored. The tests of Ctrl-C would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
hypothesis.settings.register_profile("soak", deadline=None, database=None, max_examples=5_000)
hypothesis.settings.load_profile(os.environ.get("ENGINERY_TEST_HYPOTHESIS", "fixed"))


def pytest_report_header() -> str:
    return f"enginery: start_method={start_method_of_this_run()}, runtime directory {_directory}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    system = Path(__file__).parent / "system"
    for item in items:
        if system in item.path.parents:
            item.add_marker(pytest.mark.system)
    if "soak" not in config.getoption("-m"):
        soaking = [item for item in items if item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=soaking)
        items[:] = [item for item in items if item not in soaking]


def pytest_unconfigure() -> None:
    shutil.rmtree(_directory, ignore_errors=True)


def start_method_of_this_run() -> str:
    return os.environ.get("ENGINERY_TEST_START_METHOD", "fork")


@pytest.fixture(scope="session")
def start_method() -> str:
    """How tests start processes: "fork", or what ENGINERY_TEST_START_METHOD says ("spawn")."""
    return start_method_of_this_run()


@pytest.fixture(scope="session")
def runtime_directory() -> Path:
    """Where this run's clusters live."""
    return _directory


@pytest.fixture(scope="session")
def this_run() -> Ground:
    """Its share of the machine."""
    return _ground


@pytest.fixture(scope="module", autouse=True)
def nothing_left_behind(this_run: Ground) -> Iterator[None]:
    """Fail the module that leaves something; what it left is taken away."""
    with this_run.as_it_was("this module"):
        yield
