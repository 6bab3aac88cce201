"""The shape of the code, checked by reading it: ranks, forbidden imports, sizes, the picture."""
