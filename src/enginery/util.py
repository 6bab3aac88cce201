"""ipyparallel's path to `interactive`, the one function of its utilities that users need."""

from enginery.objects.canning import interactive

__all__ = ["interactive"]
