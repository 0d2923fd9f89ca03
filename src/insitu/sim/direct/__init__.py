"""Products of convolutions straight from their input map, without gathering windows first."""
