"""An engine: a live namespace, and one main thread that runs tasks in it."""
