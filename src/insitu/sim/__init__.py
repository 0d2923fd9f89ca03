"""What a Program computes on a chip, how long it takes and what it costs: values, time, energy, traces."""
