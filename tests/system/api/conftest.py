"""One cluster for each module, or one of each kind in its `CLUSTERS`; and gates for tasks that are held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import enginery as ipp
from tests.system.api.held import TWO, Gate


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "rc" in metafunc.fixturenames:
        clusters = getattr(metafunc.module, "CLUSTERS", TWO)
        metafunc.parametrize("rc", list(clusters.values()), indirect=True, scope="module", ids=list(clusters))


@pytest.fixture(scope="module")
def rc(request: pytest.FixtureRequest) -> Iterator[ipp.Client]:
    with ipp.Cluster(**request.param) as client:
        yield client


@pytest.fixture
def dview(rc: ipp.Client) -> Iterator[ipp.DirectView]:
    """All engines, each with an empty namespace."""
    view = rc[:]
    yield view
    rc.clear(block=True)


@pytest.fixture
def lview(rc: ipp.Client) -> ipp.LoadBalancedView:
    return rc.load_balanced_view()


@pytest.fixture
def another(rc: ipp.Client) -> Iterator[ipp.Client]:
    """A second client of the same cluster."""
    with ipp.Client(rc.connection_file) as client:
        yield client


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[Callable[[], Gate]]:
    """Makes gates, and opens all of them at the end."""
    made: list[Gate] = []

    def make() -> Gate:
        made.append(Gate(tmp_path / f"gate {len(made)}"))
        return made[-1]

    yield make
    for gate in made:
        gate.open()


@pytest.fixture
def gate(gates: Callable[[], Gate]) -> Gate:
    return gates()
