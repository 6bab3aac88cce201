"""ipyparallel's path to the dependencies. They live with the client, and with the functions of engines."""

from enginery import registry

__getattr__ = registry.lend(__name__, ("Dependency", "depend", "dependent", "require"))
