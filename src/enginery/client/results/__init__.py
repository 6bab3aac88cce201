"""What a call gives back: results that are futures, filled by whoever reads the socket."""

from enginery.client.results.async_result import AsyncResult
from enginery.client.results.map_result import AsyncMapResult
from enginery.client.results.metadata import Metadata

__all__ = ["AsyncMapResult", "AsyncResult", "Metadata"]
