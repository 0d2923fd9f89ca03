"""Element types of memory: how wide they are and which integers they hold; those of 2 or 4 bits share a byte."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Element:
    """A little-endian element of `width` bytes that holds the integers lo..hi; floats hold none.

    `share` elements lie in one byte where it is more than 1, the first one in the low bits.
    """

    name: str
    width: int
    lo: int = 0
    hi: int = -1
    share: int = 1

    @property
    def bits(self) -> int:
        """Bits of memory that an element takes."""
        return 8 * self.width // self.share

    def bytes(self, count: int) -> int:
        """Bytes that so many elements take, one behind the other."""
        return -(-count * self.width // self.share)

    def extent(self, first: int, end: int) -> tuple[int, int]:
        """The bytes (first, end) that elements first..end - 1 touch."""
        return first * self.width // self.share, self.bytes(end)

    @property
    def integer(self) -> bool:
        """Whether it holds integers."""
        return self.lo <= self.hi

    def holds(self, lo: int, hi: int) -> bool:
        """Whether every integer of lo..hi fits."""
        return self.lo <= lo and hi <= self.hi

    @property
    def numpy(self) -> str:
        """The little-endian NumPy type of one element by itself."""
        if self.name == "bool":
            return "|b1"
        kind = "f" if not self.integer else "u" if self.lo == 0 else "i"
        return f"<{kind}{self.width}"


PACKED = {e.name: e for e in (Element("i4", 1, -8, 7, 2), Element("u4", 1, 0, 15, 2), Element("i2", 1, -2, 1, 4),
                              Element("u2", 1, 0, 3, 4))}  # fmt: skip


def packed_type(bits: int, *, signed: bool) -> str:
    """The packed element type that holds codes of `bits` bits; none ("") where a byte is needed."""
    return "" if bits > 4 else f"{'i' if signed else 'u'}{2 if bits <= 2 else 4}"


def element(dtype: str) -> Element | None:
    """The element type of a name, short (i8) or NumPy's (int8); none if it is unknown."""
    short = dtype.replace("uint", "u").replace("int", "i").replace("float", "f")
    if short == "bool":
        return Element("bool", 1, 0, 1)
    if short in ("f16", "f32", "f64"):
        return Element(short, int(short[1:]) // 8)
    if short in PACKED:
        return PACKED[short]
    if short not in ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"):
        return None
    bits = int(short[1:])
    lo, hi = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if short[0] == "i" else (0, (1 << bits) - 1)
    return Element(short, bits // 8, lo, hi)
