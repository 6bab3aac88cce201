"""What a call gives back: results that are futures, filled by whoever reads the socket."""

from enginery.client.results.async_result import AsyncResult
from enginery.client.results.execute_reply import ExecuteReply
from enginery.client.results.map_result import AsyncMapResult
from enginery.client.results.metadata import Metadata
from enginery.client.results.partial import Partial

__all__ = ["AsyncMapResult", "AsyncResult", "ExecuteReply", "Metadata", "Partial"]
