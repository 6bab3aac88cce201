"""One host: a parent that starts and reaps all processes of a machine, and a supervisor that speaks for them."""
