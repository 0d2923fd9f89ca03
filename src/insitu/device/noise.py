"""What reading cells adds: independent normal noise per cell and read, seen at the foot of a column.

Every function takes NumPy arrays or torch tensors.  Currents in amperes, conductances in siemens, times in seconds;
each gives the standard deviation of the mean current over one read of `t_read` seconds, whose noise bandwidth is
1 / (2 t_read).
"""

from __future__ import annotations

import math
from typing import Any

from insitu.base.arrays import namespace
from insitu.device.cell import CellSpec

BOLTZMANN, CHARGE = 1.380649e-23, 1.602176634e-19  # J/K and C, exact in the SI


def read_variance(x_squares: Any, cell: CellSpec, *, full_scale: float | None = None, cells: int = 1) -> Any:
    """Variance of a column's analog sum in one read, in units of (input code * weight step) squared.

    `x_squares` is sum(x**2) over the driven rows (of programmed cells, where erased cells are exact), `cells` how many
    cells stand for one weight (2 in a differential pair).  Exact for noise that is independent between cells and
    does not depend on their level: sum(x**2 * sd**2).
    """
    scale = cell.levels if full_scale is None else full_scale
    sd = cell.read_sd * scale / (1.0 - cell.off_ratio)
    return x_squares * (cells * sd * sd)


def thermal_sd(g: Any, *, temperature: float, t_read: float) -> Any:
    """Johnson and Nyquist 1928: sqrt(4 k T g / (2 t_read))."""
    return namespace(g).sqrt(abs(g) * (4.0 * BOLTZMANN * temperature / (2.0 * t_read)))


def shot_sd(current: Any, *, t_read: float) -> Any:
    """Schottky 1918: sqrt(2 q I / (2 t_read))."""
    return namespace(current).sqrt(abs(current) * (CHARGE / t_read))


def flicker_sd(current: Any, q: Any, t: float, *, t0: float, t_read: float) -> Any:
    """Accumulated 1/f noise: |I| Q sqrt(ln((t + t0 + t_read) / (2 t_read))); Nandakumar et al., ICECS 2019."""
    return abs(current) * q * math.sqrt(max(math.log((t + t0 + t_read) / (2.0 * t_read)), 0.0))


def rtn_sd(current: Any, uniform: Any, *, amplitude: float, share: float, duty: float) -> Any:
    """Random telegraph noise: a trap lowers I by `amplitude`, `duty` of the time: |I| a sqrt(d (1 - d)) (Machlup 1954).

    `share` of the cells has a trap: those whose `uniform` draw (0..1, one a cell) falls below it.
    """
    hit = namespace(current, uniform).where(uniform < share, 1.0, 0.0)
    return abs(current) * hit * (amplitude * math.sqrt(duty * (1.0 - duty)))
