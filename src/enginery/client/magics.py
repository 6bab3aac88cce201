"""ipyparallel's path to the magics. They live in `enginery.frontends.magics`, and import IPython."""

from enginery import registry

__getattr__ = registry.lend(__name__, ("ParallelMagics",))
