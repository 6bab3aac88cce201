"""One host: the parent of all its processes, and the supervisor that speaks for them."""
