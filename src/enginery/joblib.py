"""Where ipyparallel has its joblib backend. See `enginery.frontends.joblib_backend`."""

from __future__ import annotations

from enginery import registry

__getattr__ = registry.lend(__name__, ("register_joblib_backend",))
