"""Moving bytes between cores and the memory they share: wires over the die, and a router at each network stop."""

from __future__ import annotations

from typing import Any

import numpy as np

from insitu.circuit.facts import PJ, facts, wire_energy


def bus_byte(square_metres: Any, supply: Any, *, stops: int, router_scale: Any) -> Any:
    """Joules of a byte between a core and a memory in the middle of a die.

    `stops` are the die's network stops (1: no network); `router_scale` is the energy of logic here over that of the
    published router.  A byte crosses half a side of the die, and as many routers as stops lie on that way.
    """
    side = np.sqrt(np.asarray(square_metres, float))
    hops = 0.0 if stops == 1 else max(1.0, np.sqrt(stops) / 2)
    router = facts()["bus"]["router_pj_per_bit"] * PJ * hops * router_scale
    return 8.0 * (wire_energy(side / 2, supply) + router)
