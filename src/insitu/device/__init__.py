"""One memory cell, many at once: what it holds after programming and what a read of it adds."""
