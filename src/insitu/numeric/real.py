"""Functions of real numbers from IEEE + - * / and sqrt alone, so that every machine gives the same bits (DESIGN 2).

Each takes a float32 or float64 array and rounds every operation to that format; no fused multiply-add.  Reductions of
the argument and polynomials are the textbook ones (Taylor, atanh series); `ULPS` states the largest error seen over
the range of tests/numeric/test_real.py.
"""

from __future__ import annotations

from math import factorial
from typing import Any

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[Any]
ULPS = {
    "exp": 2, "log": 2, "sin": 2, "cos": 2, "tan": 4, "atan": 3, "erf": 16, "tanh": 3, "sigmoid": 3, "sinh": 5,
    "cosh": 4, "asin": 4, "acos": 4, "asinh": 3, "acosh": 3, "atanh": 3, "softplus": 3, "power": 1,
}  # fmt: skip
LN2 = (0.693359375, -2.12194440054690583e-4)  # sum: ln 2; the first has few bits, so that multiples of it are exact
LN2_WIDE = (0.693147180369123816490, 1.90821492927058770002e-10)
HALF_PI = (1.5703125, 4.8351287841796875e-4, 3.1385570764541626e-7, 6.0771005065061922e-11)
HALF_PI_WIDE = (1.57079632673412561417, 6.07710050630396597660e-11, 2.02226624879595063154e-21)


def _wide(x: Reals) -> bool:
    return x.dtype == np.float64


def _series(x: Reals, coefficients: list[float]) -> Reals:
    """Horner's rule, the highest coefficient first."""
    result = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        result = result * x + x.dtype.type(c)
    return result


def exp(x: Reals) -> Reals:
    """Exponential: 2**k * e**r with |r| <= ln2 / 2 and a Taylor polynomial."""
    kind = x.dtype.type
    top, low = (kind(710.0), kind(-746.0)) if _wide(x) else (kind(89.0), kind(-104.5))
    bounded = np.clip(np.where(np.isnan(x), kind(0), x), low, top)
    k = np.rint(bounded * kind(1.4426950408889634))
    high, rest = LN2_WIDE if _wide(x) else LN2
    r = bounded - k * kind(high) - k * kind(rest)
    p = _series(r, [1 / factorial(n) for n in range(13 if _wide(x) else 7, -1, -1)])
    half = np.trunc(k / 2)  # in two steps, since 2**k alone may not be a number
    result = np.ldexp(np.ldexp(p, half.astype(np.int32)), (k - half).astype(np.int32))
    result = np.where(x > top, kind(np.inf), np.where(x < low, kind(0), result))
    return np.where(np.isnan(x), x, result)


def log(x: Reals) -> Reals:
    """Natural logarithm: e * ln2 + 2 atanh(s), s = (m - 1) / (m + 1), m in sqrt(1/2)..sqrt(2)."""
    kind = x.dtype.type
    safe = np.where((x > 0) & np.isfinite(x), x, kind(1))
    m, e = np.frexp(safe)
    small = m < kind(0.7071067811865476)
    m, k = np.where(small, m * 2, m), (e - small).astype(x.dtype)
    f = m - kind(1)
    s = f / (kind(2) + f)
    p = _series(s * s, [2 / (2 * n + 1) for n in range(10 if _wide(x) else 4, 0, -1)])
    high, rest = LN2_WIDE if _wide(x) else LN2
    tail = s * s * s * p
    result = k * kind(high) + (f - (f * s - tail) + k * kind(rest))  # 2 s = f - f s
    special = np.where(x == 0, kind(-np.inf), np.where(x == kind(np.inf), x, kind(np.nan)))
    return np.where((x > 0) & np.isfinite(x), result, special)


def _quadrant(x: Reals) -> tuple[Reals, Reals]:
    """(r, quadrant) with x = quadrant * pi / 2 + r."""
    kind = x.dtype.type
    finite = np.where(np.isfinite(x), x, kind(0))
    k = np.rint(finite * kind(0.6366197723675814))
    r = finite
    for part in HALF_PI_WIDE if _wide(x) else HALF_PI:
        r = r - k * kind(part)
    return r, np.mod(k, kind(4))


def _sine(r: Reals) -> Reals:
    top = 9 if _wide(r) else 5
    return r + r * r * r * _series(r * r, [(-1) ** n / factorial(2 * n + 1) for n in range(top, 0, -1)])


def _cosine(r: Reals) -> Reals:
    top = 10 if _wide(r) else 6
    kind = r.dtype.type
    return kind(1) - r * r * (
        kind(0.5) - r * r * _series(r * r, [(-1) ** n / factorial(2 * n) for n in range(top, 1, -1)])
    )


def _turned(x: Reals, quarter: int) -> Reals:
    r, q = _quadrant(x)
    q = np.mod(q + quarter, 4)
    value = np.where(np.mod(q, 2) == 0, _sine(r), _cosine(r))
    return np.where(np.isfinite(x), np.where(q >= 2, -value, value), x.dtype.type(np.nan))


def sin(x: Reals) -> Reals:
    """Sine; |x| up to 10^4 (float32), 10^8 (float64), beyond with growing error."""
    return _turned(x, 0)


def cos(x: Reals) -> Reals:
    """Cosine, as sin."""
    return _turned(x, 1)


def tan(x: Reals) -> Reals:
    """Tangent as sin / cos."""
    return sin(x) / cos(x)


def atan(x: Reals) -> Reals:
    """Arc tangent: |x| > 1 by 1/x, then above tan(pi/8) by (x - 1) / (x + 1), then its series."""
    kind = x.dtype.type
    a = np.abs(x)
    far = a > 1
    a = np.where(far, kind(1) / np.where(a == 0, kind(1), a), a)
    mid = a > kind(0.41421356)
    t = np.where(mid, (a - kind(1)) / (a + kind(1)), a)
    series = [(-1) ** n / (2 * n + 1) for n in range(20 if _wide(x) else 9, 0, -1)]
    value = t + t * t * t * _series(t * t, series)
    value = np.where(mid, kind(np.pi / 4) + value, value)
    value = np.where(far, kind(np.pi / 2) - value, value)
    return np.copysign(value, x)


def erf(x: Reals) -> Reals:
    """2 / sqrt(pi) * exp(-x^2) * sum of 2^n x^(2n+1) / (2n+1)!!, whose terms all have one sign; 1 far out."""
    kind = x.dtype.type
    edge, terms = (kind(6.0), 110) if _wide(x) else (kind(4.0), 56)
    a = np.where(np.isnan(x), kind(0), np.minimum(np.abs(x), edge))
    total = np.zeros_like(a)
    for n in range(terms, 0, -1):
        total = (total + kind(1)) * (kind(2) * a * a / kind(2 * n + 1))
    head = np.rint(a * kind(16)) / kind(16)  # x^2 = head^2 + (x - head) (x + head), the first exact
    decay = exp(-(head * head)) * exp(-((a - head) * (a + head)))
    value = np.minimum(kind(1.1283791670955126) * decay * (a + a * total), kind(1))
    value = np.where(np.abs(x) >= edge, kind(1), value)
    return np.where(np.isnan(x), x, np.copysign(value, x))


def sigmoid(x: Reals) -> Reals:
    """1 / (1 + exp(-x)), from the side where the exponential is small."""
    e = exp(-np.abs(x))
    one = x.dtype.type(1)
    return np.where(x >= 0, one / (one + e), e / (one + e))


def tanh(x: Reals) -> Reals:
    """Odd: (1 - e) / (1 + e), e = exp(-2|x|); near 0 its Taylor polynomial."""
    kind = x.dtype.type
    a = np.abs(x)
    e = exp(-2 * a)
    far = (kind(1) - e) / (kind(1) + e)
    near = expm1_small(2 * a)
    value = np.where(a < kind(0.25), near / (near + kind(2)), far)
    return np.copysign(np.where(np.isnan(x), x, value), x)


def expm1_small(x: Reals) -> Reals:
    """exp(x) - 1 for |x| <= 1/2 by its Taylor polynomial."""
    x = np.clip(x, -1, 1)
    return x * _series(x, [1 / factorial(n) for n in range(17 if _wide(x) else 10, 0, -1)])


def sinh(x: Reals) -> Reals:
    """(exp(x) - exp(-x)) / 2; near 0 from expm1."""
    kind = x.dtype.type
    a = np.abs(x)
    m = expm1_small(a)
    near = (m + m / (m + kind(1))) * kind(0.5)
    half = exp(a * kind(0.5))
    far = half * kind(0.5) * half - (kind(0.5) / half) / half
    return np.copysign(np.where(a < kind(0.5), near, far), x)


def cosh(x: Reals) -> Reals:
    """(exp(x) + exp(-x)) / 2."""
    half = exp(np.abs(x) * x.dtype.type(0.5))
    return half * x.dtype.type(0.5) * half + (x.dtype.type(0.5) / half) / half


def log1p(x: Reals) -> Reals:
    """log(1 + x), corrected for what the sum loses."""
    one = x.dtype.type(1)
    u = one + x
    safe = np.where((u == one) | ~np.isfinite(u), one, u - one)
    return np.where(u == one, x, np.where(np.isfinite(u), log(u) * (x / safe), log(u)))


def asinh(x: Reals) -> Reals:
    """log(|x| + sqrt(x^2 + 1)) with the sign of x."""
    kind = x.dtype.type
    a = np.abs(x)
    return np.copysign(log1p(a + a * a / (kind(1) + np.sqrt(a * a + kind(1)))), x)


def acosh(x: Reals) -> Reals:
    """log(x + sqrt(x^2 - 1)), x >= 1."""
    t = x - x.dtype.type(1)
    return log1p(t + np.sqrt(t * (x + x.dtype.type(1))))


def atanh(x: Reals) -> Reals:
    """log((1 + x) / (1 - x)) / 2."""
    a = np.abs(x)
    one = x.dtype.type(1)
    return np.copysign(log1p(2 * a / (one - a)) * x.dtype.type(0.5), x)


def asin(x: Reals) -> Reals:
    """Arc sine as atan(x / sqrt((1 - x) (1 + x)))."""
    one = x.dtype.type(1)
    return atan(x / np.sqrt((one - x) * (one + x)))


def acos(x: Reals) -> Reals:
    """Arc cosine as 2 atan(sqrt((1 - x) / (1 + x)))."""
    one = x.dtype.type(1)
    return x.dtype.type(2) * atan(np.sqrt((one - x) / (one + x)))


def softplus(x: Reals) -> Reals:
    """log(1 + exp(x))."""
    return np.maximum(x, 0) + log1p(exp(-np.abs(x)))


def power(x: Reals, y: Reals) -> Reals:
    """x**y as exp(y log |x|), in float64 and rounded once; the signs and special cases of IEEE pow."""
    wide, up = x.astype(np.float64), y.astype(np.float64)
    value = exp(up * log(np.abs(wide)))
    whole = np.rint(up) == up
    odd = whole & (np.mod(up, 2) == 1)
    value = np.where(wide < 0, np.where(odd, -value, np.where(whole, value, np.nan)), value)
    value = np.where((up == 0) | (wide == 1), 1.0, value)
    return np.where(up == 1, wide, np.where(up == 2, wide * wide, value)).astype(x.dtype)
