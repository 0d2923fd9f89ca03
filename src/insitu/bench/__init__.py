"""Benchmarks: one file per row of the design's table, each with its bar; `insitu bench NAME` runs one."""
