"""joblib's `Parallel` and scikit-learn on the engines give what joblib's own processes give."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import joblib
import numpy
import pytest

import enginery as ipp
from enginery.frontends import joblib_backend

SCALE = 3


@pytest.fixture(scope="module")
def rc() -> Iterator[ipp.Client]:
    with ipp.Cluster(n=2) as client:
        client.load_balanced_view().register_joblib_backend("of this test")
        yield client


@pytest.fixture
def parallel(rc: ipp.Client) -> Iterator[Any]:
    with joblib.parallel_config("of this test"):
        yield joblib.Parallel()


def scaled(x: int) -> tuple[int, int]:
    return SCALE * x, os.getpid()


def failing(x: int) -> int:
    if x == 3:
        raise KeyError(x)
    return x


def inner(x: int) -> tuple[int, int]:
    pids = joblib.Parallel(n_jobs=2)(joblib.delayed(os.getpid)() for _ in range(4))
    return x, len({*pids, os.getpid()})


def calls(function: Any, count: int = 10) -> Any:
    return (joblib.delayed(function)(number) for number in range(count))


def test_values_in_order_from_engines_with_data_that_functions_name(rc: ipp.Client, parallel: Any) -> None:
    values, pids = zip(*parallel(calls(scaled)), strict=True)
    assert list(values) == [3 * number for number in range(10)]
    assert set(pids) <= set(rc[:].apply_sync(os.getpid))


def test_errors_are_of_their_type(parallel: Any) -> None:
    with pytest.raises(KeyError, match="3"):
        parallel(calls(failing))


def test_parallel_inside_a_task_stays_in_it(parallel: Any) -> None:
    assert parallel(calls(inner, 3)) == [(0, 1), (1, 1), (2, 1)]


def test_as_a_generator(rc: ipp.Client) -> None:
    with joblib.parallel_config("of this test"):
        values = joblib.Parallel(return_as="generator")(calls(failing, 3))
        assert list(values) == [0, 1, 2]


def test_large_arrays(rc: ipp.Client, parallel: Any) -> None:
    array = numpy.arange(1 << 18, dtype="f8")
    sums = parallel(joblib.delayed(numpy.sum)(array + number) for number in range(3))
    assert sums == [float(numpy.sum(array + number)) for number in range(3)]


SEARCH = """
import sys
import joblib
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.tree import DecisionTreeClassifier

def scores():
    x, y = load_iris(return_X_y=True)
    search = GridSearchCV(DecisionTreeClassifier(random_state=1), {"max_depth": [1, 2, 3]}, cv=3)
    return search.fit(x, y).cv_results_["mean_test_score"].tolist()
"""


def test_grid_search_is_that_of_loky(rc: ipp.Client, parallel: Any) -> None:
    loky = f'{SEARCH}\nwith joblib.parallel_config("loky", n_jobs=2): print(scores())'
    shown = subprocess.run([sys.executable, "-c", loky], capture_output=True, text=True, check=True).stdout
    names: dict[str, Any] = {}
    exec(SEARCH, names)
    assert repr(names["scores"]()) == shown.strip()


@pytest.mark.parametrize(("asked", "jobs"), [(None, 2), (-1, 2), (-2, 1), (-9, 1), (1, 1), (2, 2), (50, 2)])
def test_number_of_jobs(rc: ipp.Client, asked: int | None, jobs: int) -> None:
    assert joblib_backend.EngineryBackend(rc.load_balanced_view()).effective_n_jobs(asked) == jobs


def test_no_jobs_have_no_meaning(rc: ipp.Client) -> None:
    with pytest.raises(ValueError, match="n_jobs == 0"):
        joblib_backend.EngineryBackend(rc.load_balanced_view()).effective_n_jobs(0)


def test_by_name_with_the_cluster_that_runs(rc: ipp.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joblib_backend, "_default", None)
    ipp.register_joblib_backend()
    try:
        for name in ("enginery", "ipyparallel"):
            with joblib.parallel_config(name):
                pids = {pid for _, pid in joblib.Parallel()(calls(scaled))}
                assert pids <= set(rc[:].apply_sync(os.getpid))
    finally:
        joblib_backend.default_view().client.close()


def test_batches_that_are_not_wanted_any_more_are_taken_back(rc: ipp.Client) -> None:
    backend = joblib_backend.EngineryBackend(rc.load_balanced_view())
    results = [backend.submit(lambda: 1) for _ in range(3)]
    backend.abort_everything()
    rc.wait(results, 20)
    assert repr(backend).endswith("0 batches under way>")
