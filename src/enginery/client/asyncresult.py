"""ipyparallel's path to the results. They live in `enginery.client.results`."""

from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION

from enginery.client.results.async_result import AsyncResult
from enginery.client.results.hub_result import AsyncHubResult
from enginery.client.results.map_result import AsyncMapResult

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "AsyncHubResult",
    "AsyncMapResult",
    "AsyncResult",
]
