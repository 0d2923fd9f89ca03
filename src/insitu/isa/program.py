"""Program: what a chip executes, complete with its memory map, weights and the graph it was compiled from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from insitu.numeric.affine import Rounding
from insitu.numeric.slicing import slice_shifts

Size = int | str  # a name stands for a size bound at run time
SymbolKind = Literal["input", "output", "weight", "state", "scratch"]
MAX_DIMS = 4
MAX_LOOPS = 4


HOME = "ram"  # the memory that the cores of a chip share; that of chip n > 0 is the space "ram@n"


def space_of(chip: int, name: str = HOME) -> str:
    """The memory space of a chip's memory."""
    return f"{name}@{chip}" if chip else name


def chip_of_space(space: str) -> tuple[str, int]:
    """(memory, chip) of a memory space."""
    name, _, chip = space.partition("@")
    return name, int(chip) if chip.isdigit() else 0


@dataclass(frozen=True)
class WeightRef:
    """A constant array by shape, type and content hash; `data` is absent in shape-only programs."""

    shape: tuple[int, ...]
    dtype: str
    hash: str
    data: npt.NDArray[Any] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Symbol:
    """A named piece of memory: `count` elements of `dtype` at byte `address` of `space`.

    `weight` names the WeightRef that fills a symbol of kind weight at load time; a state starts as `initial`.
    """

    name: str
    kind: SymbolKind
    space: str
    dtype: str
    count: int
    address: int
    weight: str = ""
    initial: int = 0


@dataclass(frozen=True)
class Descriptor:
    """An operand: element addresses offset + sum(i*stride) + sum(loop counter*step) inside a symbol.

    `steps` has one entry per enclosing hardware loop, outermost first.  All in elements.
    """

    symbol: str
    offset: int
    sizes: tuple[Size, ...]
    strides: tuple[int, ...]
    steps: tuple[int, ...] = ()


@dataclass(frozen=True)
class Post:
    """How a wide result becomes codes: clip(round(acc * multiplier / 2**shift) + zero_point, lo, hi).

    `multiplier` and `shift` are numbers, or names of weights with one entry per column (MVM only).
    """

    multiplier: int | str = 1
    shift: int | str = 0
    rounding: Rounding = "half_even"
    zero_point: int = 0
    lo: int = -(1 << 31)
    hi: int = (1 << 31) - 1


@dataclass(frozen=True)
class Readout:
    """How the column sums of a binding are read; see numeric/readout.py.

    kind exact: nothing else is used.  kind adc: bits, signed, multiplier, shift, slices, planes, parts.
    kind wtm2101: gain (one per column, or a number), parts, k.
    `parts` are the row boundaries (0, ..., rows) between which sums are read separately.
    `slice_bits` is (bits that a weight's slices hold, bits of a slice), `plane_bits` (bits of an input, bits of a
    plane), as numeric/slicing.py takes them; empty: whole numbers.
    `encoding` says what a slice's digits are: with offset_column a cell's less its reference column's, else sign and
    magnitude.
    `slice_shift`: bits from one slice to the next where slices lie closer than they are wide (0: as they are wide).
    `finer`: powers of two by which each part's step is finer than the rest say; codes are added in a step that is finer
    by `finest`, the largest of them in the layer.
    `biased`: the parts that hold the bias (wtm2101; empty: the first).  `reads`: array reads averaged before a code is
    made, which changes no ideal code (0: as the chip's calibration says).
    """

    kind: Literal["exact", "adc", "wtm2101"] = "exact"
    bits: int = 0
    signed: bool = True
    multiplier: int | str = 1
    shift: int | str = 0
    gain: int | str = 0
    parts: tuple[int, ...] = ()
    k: int = 0
    slice_bits: tuple[int, ...] = ()
    plane_bits: tuple[int, ...] = ()
    encoding: str = "signed_cell"
    finer: tuple[int, ...] = ()
    finest: int = 0
    biased: tuple[int, ...] = ()
    reads: int = 0
    slice_shift: int = 0

    @property
    def slice_shifts(self) -> tuple[int, ...]:
        """Bit positions of the slices of a weight, least significant first."""
        if not self.slice_bits:
            return (0,)
        bits, step = self.slice_bits
        return slice_shifts(bits, step, self.slice_shift)


@dataclass(frozen=True)
class Tile:
    """A rectangle of a weight matrix on one macro: rows row0.. and columns col0.. at array column x, row y.

    `macro` counts the macros of the section's core; y counts rows over the macro's arrays, stacked.
    """

    macro: int
    row0: int
    rows: int
    col0: int
    cols: int
    x: int
    y: int
    bias0: int = 0
    bias_rows: int = 0


@dataclass(frozen=True)
class Binding:
    """A weight matrix [rows, cols] bound to a grid of tiles, with its whole path from input code to output code.

    Input code: x = clip((q << input_shift) + input_offset, 0, 2**bits - 1) where the chip's inputs are unsigned,
    else q itself; acc = sum((x - zero_in) * w) + bias.  `label` names the layer it serves.
    `drive` is (lowest, highest) input code where they differ from that; rows within `negated`, pairs (first, end), are
    driven with x = clip(-((q << input_shift) + input_offset), *drive) instead.
    `expected` names the mean driven code of each row, with which the chip's own calibration measures its columns.
    """

    label: str
    weight: str
    bias: str
    rows: int
    cols: int
    zero_in: int
    tiles: tuple[Tile, ...]
    readout: Readout = Readout()
    post: Post = Post()
    input_shift: int = 0
    input_offset: int = 0
    expected: str = ""
    drive: tuple[int, ...] = ()
    negated: tuple[int, ...] = ()


@dataclass(frozen=True)
class Command:
    """One instruction: its mnemonic and its operands in the order of the instruction table."""

    op: str
    args: tuple[Size, ...] = ()


@dataclass(frozen=True)
class Vector:
    """Settings of a vector command: input zero points and multipliers, and the way out.

    add: (a - zero_a) * scale_a + (b - zero_b) * scale_b;  mul: (a - zero_a) * (b - zero_b);
    req, sum: (a - zero_a) [* scale_a];  max: a;  then Post.
    """

    zero_a: int = 0
    zero_b: int = 0
    scale_a: int = 1
    scale_b: int = 1
    post: Post = Post()
    multiplier: int | None = None  # index of a descriptor of per-element multipliers that replaces post.multiplier
    shift: int | None = None  # likewise for post.shift
    lut: str = ""  # weight that holds the table of SOFTMAX or LUT
    label: str = ""
    fn: str = ""  # function of V1, V2 and RED (numeric/vector.py)
    macros: tuple[int, ...] = ()  # of AMM: the first macro whose cells take its second operand, and how many
    bits: int = 0  # of AMM: of the codes of its first operand, which arrays take plane by plane


@dataclass(frozen=True)
class HostValue:
    """An operand of a host operator: in memory by descriptor, in row-major order, or (-1) held by the host alone."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    descriptor: int = -1


@dataclass(frozen=True)
class Host:
    """One operator that the host runs; `model` is the ONNX model of that one operator in base64 (isa/host.py)."""

    label: str
    operator: str
    model: str
    inputs: tuple[HostValue, ...]
    outputs: tuple[HostValue, ...]


@dataclass(frozen=True)
class Section:
    """What one core runs: its tables and its code."""

    chip: int
    core: int
    descriptors: tuple[Descriptor, ...]
    bindings: tuple[Binding, ...]
    vectors: tuple[Vector, ...]
    code: tuple[Command, ...]
    hosts: tuple[Host, ...] = ()


@dataclass(frozen=True)
class Location:
    """Where a graph value lives: strides in elements, one per dimension of its shape."""

    symbol: str
    offset: int
    shape: tuple[Size, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """Sections over one memory map.  `graph` is the text of the quantized Graph, `chip` the resolved description."""

    name: str
    chip: Mapping[str, Any]
    graph: str
    symbols: tuple[Symbol, ...]
    sections: tuple[Section, ...]
    weights: Mapping[str, WeightRef]
    values: Mapping[str, Location]
    sizes: Mapping[str, int] = field(default_factory=dict[str, int])  # named size -> largest value allowed
    spaces: Mapping[str, int] = field(default_factory=dict[str, int])  # memory space -> bytes in use
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def symbol(self, name: str) -> Symbol:
        """The symbol `name`; KeyError where there is none."""
        return next(s for s in self.symbols if s.name == name)

    @cached_property
    def _chips(self) -> Mapping[str, int]:
        return {s.name: chip_of_space(s.space)[1] for s in self.symbols}

    def chip_of(self, symbol: str) -> int:
        """The chip whose memory holds a symbol."""
        return self._chips[symbol]

    @property
    def chips(self) -> int:
        """How many chips the program runs on."""
        return 1 + max((s.chip for s in self.sections), default=0)

    def weight(self, name: str) -> npt.NDArray[Any]:
        """The data of a weight; a shape-only program has none (ValueError)."""
        ref = self.weights[name]
        if ref.data is None:
            raise ValueError(f"weight {name} has no data: this program is shape-only")
        return ref.data

    def bind(self, sizes: Mapping[str, int]) -> Program:
        """The same program with every named size replaced by its number."""
        if not self.sizes:
            return self
        known = {name: int(sizes[name]) for name in self.sizes}

        def number(size: Size) -> Size:
            return known.get(size, size) if isinstance(size, str) else size

        sections = tuple(
            replace(
                s,
                descriptors=tuple(replace(d, sizes=tuple(number(n) for n in d.sizes)) for d in s.descriptors),
                code=tuple(replace(c, args=tuple(number(a) for a in c.args)) if c.op == "LOOP" else c for c in s.code),
            )
            for s in self.sections
        )
        values = {v: replace(at, shape=tuple(number(n) for n in at.shape)) for v, at in self.values.items()}
        return replace(self, sections=sections, values=values, sizes={})


def weight_ref(data: npt.NDArray[Any]) -> WeightRef:
    """A WeightRef that carries its data; the hash covers type, shape and bytes."""
    import hashlib

    data = np.ascontiguousarray(data)
    digest = hashlib.blake2b(f"{data.dtype.str}{data.shape}".encode() + data.tobytes(), digest_size=16)
    return WeightRef(tuple(data.shape), data.dtype.name, digest.hexdigest(), data)


def load_program(path: str | Path) -> Program:
    """Read a .insitu file; one that is truncated, altered, or no program is a ProgramError."""
    from insitu.isa.container import load_program as load

    return load(path)


def save_program(program: Program, path: str | Path) -> Path:
    """Write a .insitu file that appears whole or not at all; equal programs give equal bytes."""
    from insitu.isa.container import save_program as save

    return save(program, path)
