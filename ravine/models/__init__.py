"""Joint laws p(x, z), one family a file."""
