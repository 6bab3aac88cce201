"""ipyparallel's path to `publish_data`. It lives in `enginery.engine.publishing`."""

from enginery.engine.publishing import publish_data

__all__ = ["publish_data"]
