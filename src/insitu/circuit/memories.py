"""Memories beside the macros: energy of a byte and time to the first one, of SRAM, eDRAM and DRAM rows."""

from __future__ import annotations

import math

from insitu.circuit.facts import PJ, facts
from insitu.circuit.spec import Technology
from insitu.circuit.times import fo4


def dram_byte(hits: float) -> float:
    """Joules of a byte of DRAM when the share `hits` of bursts finds its row open.

    A miss opens a row for one burst; in the best case a row is opened once for all its bursts, whatever is asked.
    """
    fact = facts()["dram"]
    misses = max(1.0 - hits, fact["burst_bytes"] / fact["row_bytes"])
    opened = fact["mean_bits"] / (fact["burst_bytes"] * 8 / misses)  # activations a bit, over those of the mean
    return 8.0 * fact["pj_per_bit"] * PJ * (fact["moved_share"] + (1.0 - fact["moved_share"]) * opened)


def dram_time(hits: float) -> float:
    """Mean seconds to the first byte of a burst: a row that is open, or one to close and another to open."""
    fact = facts()["dram"]
    return (hits * fact["hit_ns"] + (1.0 - hits) * fact["miss_ns"]) * 1e-9


def edram_byte(size: float, technology: Technology, scale: float) -> float:
    """Joules of a byte of one eDRAM bank of `size` bytes; `scale` is energy at this process over that of the fact."""
    fact = facts()["edram"]
    each = fact["access_pj"] * PJ / fact["access_bytes"] * scale
    return each * (max(size, 1024.0) / (fact["bank_kib"] * 1024)) ** fact["depth_exponent"]


def access_time(size: float, square_metres: float, technology: Technology) -> float:
    """Seconds to the first byte of an SRAM or eDRAM of `size` bytes: decoding, sensing, wires over half its side."""
    fact = facts()["memory_time"]
    doublings = max(0.0, math.log2(size * 8 / 65536))
    delays = fact["delays_at_64_kbit"] + fact["delays_per_doubling"] * doublings
    wires = math.sqrt(square_metres) / 2 * 1e3 * fact["wire_ps_per_mm"] * 1e-12
    return delays * float(fo4(technology.node, technology.supply)) + wires
