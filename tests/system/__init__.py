"""Real processes, files and terminals, as users have them."""
