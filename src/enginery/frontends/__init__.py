"""What people touch: magics for IPython's shell, and how things look, in `faces`, which needs no IPython."""
