"""Published statistics of devices as pure functions: what programming leaves, how levels move, what a read adds.

Conductances in microsiemens (SONOS: currents in nanoamperes), times in seconds after programming, `normal` standard
normal draws.  Every function takes NumPy arrays or torch tensors.  A law names the paper its numbers come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from insitu.base.arrays import namespace, stop_gradient
from insitu.base.errors import ChipError, RangeError, did_you_mean

HOUR, DAY, YEAR = 3600.0, 86400.0, 31536000.0
Spread = Callable[[Any], Any]
Later = Callable[[Any, Any, float, Any], Any]  # (programmed, target, seconds, normal) -> level at that time


def _stays(g: Any, target: Any, t: float, normal: Any) -> Any:
    return g


def _silent(g: Any, programmed: Any, t: float) -> Any:
    return 0.0 * g


@dataclass(frozen=True)
class Law:
    """One published device: its range, and its three laws."""

    name: str
    g_min: float
    g_max: float
    source: str
    sd: Spread  # of a programmed level, by target
    later: Later = _stays
    read_sd: Callable[[Any, Any, float], Any] = _silent  # (level at that time, level as programmed, seconds)
    accept: float | None = None  # what verify accepted where the spread was measured, share of full scale
    redraws: bool = False  # `later` does not continue the programmed level but draws anew around the target
    unit: str = "uS"
    exponent: Spread | None = None  # mean drift exponent of a target, where it is not the same for all
    t0: float = 1.0  # of that drift

    @property
    def moves(self) -> bool:
        """Whether levels change with time."""
        return self.later is not _stays

    @property
    def noisy(self) -> bool:
        """Whether the paper says how noisy a read is."""
        return self.read_sd is not _silent

    def program(self, target: Any, normal: Any) -> Any:
        """Levels after programming; a level is never below zero."""
        xp = namespace(target, normal)
        return xp.clip(target + self.sd(target) * normal, 0.0, None)

    def at(self, programmed: Any, target: Any, t: float, normal: Any) -> Any:
        """Levels t seconds after programming."""
        if t < 0:
            raise RangeError("time", f"{t:g} s", "a time after programming")
        return self.later(programmed, target, t, normal)


def drift(g: Any, t: float, *, nu: Any, t0: float) -> Any:
    """Conductance t seconds after programming: g ((t + t0) / t0)^-nu; t = 0 leaves g as it is."""
    return g * math.exp(math.log((t + t0) / t0)) ** -nu


GRID = 1024  # steps of a table of targets


@cache
def raised(name: str, t: float) -> Any:
    """Targets [GRID + 1] to ask for, so that with mean exponents levels stand in the wanted proportions t s later.

    Entry i is for i / GRID of the full range.  Low levels drift more, so they are asked for higher; the highest stays
    what it is (weights programmed for their whole life: Mackin et al., Nat. Commun. 13:3765, 2022).
    """
    import numpy as np

    law = law_of(name)
    fine = np.linspace(law.g_min, law.g_max, 8 * GRID + 1)
    assert law.exponent is not None
    mean = fine * ((t + law.t0) / law.t0) ** -law.exponent(fine)
    mean = np.maximum.accumulate(mean)
    share = (mean - mean[0]) / (mean[-1] - mean[0])
    return np.interp(np.linspace(0.0, 1.0, GRID + 1), share, fine)


def asked(name: str, wanted: Any, t: float) -> Any:
    """The target to ask for instead of a wanted conductance: `raised`, between its entries linear."""
    law, xp = law_of(name), namespace(wanted)
    table = raised(name, t)
    place = xp.clip((wanted - law.g_min) / (law.g_max - law.g_min), 0.0, 1.0) * GRID
    low = xp.clip(xp.floor(place), 0.0, GRID - 1.0)
    at = xp.asarray(stop_gradient(low), dtype=xp.int64)
    if xp.__name__ != "numpy":
        table = xp.asarray(table, dtype=wanted.dtype, device=wanted.device)
    return table[at] + (place - low) * (table[at + 1] - table[at])


def clipped_polynomial(coefficients: tuple[float, ...]) -> Spread:
    """The function max(0, c0 + c1 g + c2 g^2 + ...)."""

    def spread(g: Any) -> Any:
        total = 0.0 * g + coefficients[-1]
        for c in coefficients[-2::-1]:
            total = total * g + c
        return namespace(g).clip(total, 0.0, None)

    return spread


def relative(coefficients: tuple[float, ...], g_max: float, scale: float = 1.0) -> Spread:
    """The function scale (c0 + c1 r + ...) of r = g / g_max, not below 0."""
    poly = clipped_polynomial(coefficients)
    return lambda g: scale * poly(g / g_max)


def one_over_f(g: Any, q: Any, t: float, *, t0: float, t_read: float) -> Any:
    """Accumulated 1/f noise of a read: |g| Q sqrt(ln((t + t0 + t_read) / (2 t_read)))."""
    return abs(g) * q * math.sqrt(math.log((t + t0 + t_read) / (2.0 * t_read)))


# phase change, Nandakumar et al., ICECS 2019


def nandakumar_nu(target: Any, normal: Any, *, g_max: float = 25.0) -> Any:
    """Drift exponents |mu + sd n|, mu and sd by relative target."""
    xp = namespace(target, normal)
    r = xp.log(xp.clip(target / g_max, 1e-9, None))
    mean, sd = xp.clip(-0.0155 * r + 0.0244, 0.049, 0.1), xp.clip(-0.0125 * r - 0.0059, 0.008, 0.045)
    return abs(mean + sd * normal)


def _nandakumar_read(g: Any, programmed: Any, t: float) -> Any:
    xp = namespace(g, programmed)
    q = xp.clip(0.0088 / xp.clip((abs(programmed) / 25.0) ** 0.65, 1e-3, None), None, 0.2)
    return one_over_f(g, q, t, t0=20.0, t_read=250e-9)


# the HERMES chip, Le Gallo et al., Nat. Electron. 2023


def hermes_nu(target: Any, normal: Any, *, g_max: float, devices: int) -> Any:
    """Drift exponents of weights of one or two devices."""
    xp = namespace(target, normal)
    r = target / g_max
    log = xp.log(xp.clip(r, 1e-9, None))
    mean = xp.where(r < 0.0945, xp.clip(-0.0387 * log - 0.0182, 0.072, 0.13), -0.0436 * r * r - 0.0126 * r + 0.0736)
    if devices == 2:
        low, high = xp.clip(-0.0117 * log - 0.0057, 0.0091, 0.04), -0.0118 * r * r + 0.0093 * r + 0.0073
        sd = xp.where(r < 0.3055, low, high)
    else:
        low, high = xp.clip(-0.0120 * log - 0.0023, 0.0124, 0.04), -0.0165 * r * r + 0.0116 * r + 0.0104
        sd = xp.where(r < 0.3039, low, high)
    return mean + sd * normal


def _hermes(devices: int) -> Law:
    g_max = 20.7 if devices == 2 else 10.35
    two, one = (0.16603, 4.71806, -8.48101, 4.68961), (0.15782, 2.32444, -2.16311, 0.68842)
    t0 = 300.0 if devices == 2 else 200.0

    def later(g: Any, target: Any, t: float, normal: Any) -> Any:
        return drift(g, t, nu=hermes_nu(target, normal, g_max=g_max, devices=devices), t0=t0)

    def read(g: Any, programmed: Any, t: float) -> Any:
        xp = namespace(g, programmed)
        q = xp.clip(0.0088 / xp.clip((abs(programmed) / g_max) ** 0.65, 1e-3, None), None, 0.2)
        return one_over_f(g, q, t, t0=t0, t_read=512e-9)

    source = (
        "Le Gallo et al., Nat. Electron. 2023, s41928-023-01010-1; read noise: the form of Nandakumar 2019, t_r 512 ns"
    )

    def exponent(target: Any) -> Any:
        return hermes_nu(target, 0.0 * target, g_max=g_max, devices=devices)

    sd = relative(two if devices == 2 else one, g_max)
    return Law(f"pcm-hermes-{devices}", 0.0, g_max, source, sd, later, read, exponent=exponent, t0=t0)


# ReRAM, Wan et al., Nature 608:504, 2022

WAN = (
    (1.0, (0.348, 16.030, -43.853, 45.393, -16.815)),
    (DAY, (0.701, 22.086, -50.773, 47.095, -16.458)),
    (2 * DAY, (0.782, 20.274, -43.507, 37.062, -11.934)),
)  # seconds, coefficients of the relative conductance


def wan_sd(target: Any, t: float) -> Any:
    """Spread of levels t seconds after programming: between the published times linear in log t; later as at 2 days."""
    times = [math.log(max(when, 1.0)) for when, _ in WAN]
    x = min(max(math.log(max(t, 1.0)), times[0]), times[-1])
    i = 0 if x < times[1] else 1
    share = (x - times[i]) / (times[i + 1] - times[i])
    below, above = (relative(WAN[j][1], 40.0)(target) for j in (i, i + 1))
    return below + share * (above - below)


def _wan_later(g: Any, target: Any, t: float, normal: Any) -> Any:
    if t <= 1.0:
        return g
    return namespace(g, target).clip(target + wan_sd(target, t) * normal, 0.0, None)


# ReRAM with a CMO layer, Falcone et al.; read noise Lombardo, DRC 2024


def _cmo_later(g: Any, target: Any, t: float, normal: Any) -> Any:
    if t <= 1.0:
        return g
    return g - 0.08900 * math.log(t) + (0.04201 * math.log(t) + 0.41183) * normal


def _cmo_read(g: Any, programmed: Any, t: float) -> Any:
    xp = namespace(g)
    level = xp.log10(xp.clip(g, 1.0, None))
    return 0.02773 * level * math.sqrt(max(math.log((t + 1e-6) / 2e-6), 0.0))


# SONOS, Agrawal et al., IEDM 2022 21.7; currents in nA

SONOS = (
    (19.88665, 176.3115), (25.59102, 186.85544), (28.72753, 193.56834), (31.04318, 198.90332),
    (33.76214, 204.77023), (34.57909, 207.34309),
)  # fmt: skip


def sonos_sd(current: Any, t: float) -> Any:
    """Spread of a cell's current, days 0 to 5 interpolated linearly; later as at day 5, the last published."""
    days = min(max(t / DAY, 0.0), 5.0)
    i = min(int(days), 4)
    xp = namespace(current)
    low, high = (a * (1.0 - xp.exp(-current / b)) for a, b in SONOS[i : i + 2])
    return low + (days - i) * (high - low)


def _sonos_later(g: Any, target: Any, t: float, normal: Any) -> Any:
    return target + sonos_sd(target, t) * normal if t > 0 else g


def _sonos_read(g: Any, programmed: Any, t: float) -> Any:
    return 12.58037 * (1.0 - namespace(g).exp(-abs(g) / 215.36557))


_NANDAKUMAR = "Nandakumar et al., ICECS 2019 (IEEE 8964852)"
_LAWS = (
    Law(
        "pcm-nandakumar", 0.0, 25.0, _NANDAKUMAR, relative((0.26348, 1.9650, -1.1731), 25.0),
        lambda g, target, t, normal: drift(g, t, nu=nandakumar_nu(target, normal), t0=20.0), _nandakumar_read,
        exponent=lambda target: nandakumar_nu(target, 0.0 * target), t0=20.0,
    ),
    _hermes(1),
    _hermes(2),
    Law(
        "pcm-joshi", 0.25, 25.0, "Joshi et al., Nat. Commun. 11:2473, 2020, Fig. 3b: 27 s, no drift law",
        clipped_polynomial((0.28638599, 0.07585724, -0.00178767)),
    ),
    Law(
        "reram-wan", 1.0, 40.0, "Wan et al., Nature 608:504, 2022, Ext. Data Fig. 3, aihwkit fit (1 s, 1 d, 2 d)",
        lambda g: wan_sd(g, 1.0), _wan_later, redraws=True,
    ),
    Law(
        "reram-wan-crosssim", 1.0, 39.26, "the same data 1 s after programming, as fitted in CrossSim",
        clipped_polynomial((1.053, 0.2374, -1.167e-2, 1.536e-4)),
    ),
    Law(
        "reram-milo", 50.0, 225.0, "Milo et al., IRPS 2021, Fig. 4 (IGVVA-100)",
        clipped_polynomial((4.782321, -0.009107)),
    ),
    Law(
        "reram-cmo", 9.0, 88.19, "CMO/HfOx: Falcone et al. (0.2 % acceptance, as coded); read noise Lombardo, DRC 2024",
        clipped_polynomial((0.00081107, 0.00106879)), _cmo_later, _cmo_read, accept=0.002,
    ),
    Law(
        "reram-cmo-2pct", 9.0, 88.19, "CMO/HfOx: Falcone et al. (2 % acceptance); read noise Lombardo, DRC 2024",
        clipped_polynomial((0.01122, 0.01129)), _cmo_later, _cmo_read, accept=0.02,
    ),
    Law(
        "sonos-agrawal", 0.0, 3200.0, "Agrawal et al., IEDM 2022 21.7; its mean shift (Fig. 10b) is left out",
        lambda g: sonos_sd(g, 0.0), _sonos_later, _sonos_read, redraws=True, unit="nA",
    ),
)  # fmt: skip
LAWS: Mapping[str, Law] = {law.name: law for law in _LAWS}


def law_of(name: str) -> Law:
    """A law by name."""
    if name not in LAWS:
        raise ChipError(f"law {name!r}", "unknown", f"one of {', '.join(LAWS)}", try_=did_you_mean(name, LAWS))
    return LAWS[name]


def milo_current(g: Any, v: Any) -> Any:
    """Cell current in microamperes at v volts (at most 0.5): I = G V + NL2 V^2 + NL3 V^3; Milo et al., IRPS 2021."""
    x = namespace(g).log10(g * 1e-6)
    nl2 = 1.388e-4 * x**3 + 1.541e-3 * x**2 + 5.711e-3 * x + 7.063e-3
    nl3 = 8.871e-5 * x**2 + 6.7919e-4 * x + 1.2968e-3
    return g * v + (nl2 * v**2 + nl3 * v**3) * 1e6


def compensation(before: Any, after: Any) -> Any:
    """Global drift compensation of one array: the factor that restores the mean response to one-hot inputs."""
    xp = namespace(before, after)
    left = xp.mean(abs(after))
    return xp.mean(abs(before)) / left if left > 0 else 1.0


def restoring(wanted: Any, now: Any) -> Any:
    """The same toward what was wanted: the factor that restores the response to inputs with the weights' own signs."""
    xp = namespace(wanted, now)
    left = xp.sum(xp.where(wanted < 0, -now, now) * (wanted != 0))
    return xp.sum(abs(wanted)) / left if left > 0 else 1.0


def acceleration(temperature: float, *, activation: float, reference: float = 300.0) -> float:
    """How much faster time runs at a temperature (kelvin) for an activation energy in electronvolts; Arrhenius."""
    return math.exp(activation / 8.617333262e-5 * (1.0 / reference - 1.0 / temperature))
