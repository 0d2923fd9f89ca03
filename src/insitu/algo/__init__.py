"""Choose above, apply below: algorithms that decide scales, gains and ranges, as plain data."""
