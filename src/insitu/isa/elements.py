"""Element types of memory: how wide they are and which integers they hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Element:
    """A little-endian element of `width` bytes that holds the integers lo..hi; floats hold none."""

    name: str
    width: int
    lo: int = 0
    hi: int = -1

    @property
    def integer(self) -> bool:
        """Whether it holds integers."""
        return self.lo <= self.hi

    def holds(self, lo: int, hi: int) -> bool:
        """Whether every integer of lo..hi fits."""
        return self.lo <= lo and hi <= self.hi

    @property
    def numpy(self) -> str:
        """The little-endian NumPy type."""
        if self.name == "bool":
            return "|b1"
        kind = "f" if not self.integer else "u" if self.lo == 0 else "i"
        return f"<{kind}{self.width}"


def element(dtype: str) -> Element | None:
    """The element type of a name, short (i8) or NumPy's (int8); none if it is unknown."""
    short = dtype.replace("uint", "u").replace("int", "i").replace("float", "f")
    if short == "bool":
        return Element("bool", 1, 0, 1)
    if short in ("f16", "f32", "f64"):
        return Element(short, int(short[1:]) // 8)
    if short not in ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"):
        return None
    bits = int(short[1:])
    lo, hi = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if short[0] == "i" else (0, (1 << bits) - 1)
    return Element(short, bits // 8, lo, hi)
