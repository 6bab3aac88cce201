"""The controller: one loop around the machines of `core`, and the history store."""
