"""A product of two run-time operands with one of them written into digital arrays: what it takes, in closed form.

The second operand's codes go into cells as weights do, then the first operand's vectors are driven through them.  That
pays where a written code is used often: attention's keys in a prompt, in groups of heads that share them.  The same
formulas count events in the simulator, decide in the compiler, and serve shapes.

Zero points: a vector of ones gives the sums of columns (where the first operand has one), a column of ones the sum of
each vector (where the second has one); the digital side takes them off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from insitu.arch.cost import event_energy, leakage
from insitu.arch.spec import Chip


@dataclass(frozen=True)
class Product:
    """`matrices` second operands [rows, cols], each multiplied by `vectors` first ones of `bits`-bit codes."""

    matrices: int
    vectors: int
    rows: int
    cols: int
    bits: int = 8
    ones_vector: bool = False
    ones_column: bool = False
    copies: int = 1  # of each matrix in cells; vectors are dealt out among them

    @property
    def macs(self) -> int:
        """Multiply-accumulates, ones not counted."""
        return self.matrices * self.vectors * self.rows * self.cols

    @property
    def outputs(self) -> int:
        """Results."""
        return self.matrices * self.vectors * self.cols

    @property
    def written_cols(self) -> int:
        """Columns of a matrix in cells."""
        return self.cols + self.ones_column

    @property
    def driven(self) -> int:
        """Vectors through each matrix, all its copies together."""
        return self.vectors + self.ones_vector * self.copies


def able(chip: Chip) -> bool:
    """Whether a chip's arrays take run-time operands: SRAM-like cells, whole sums, signed inputs in planes."""
    macro = chip.macro
    signed = macro.input.signed and macro.input.bits_per_pass < macro.input.bits
    return chip.capabilities.wload and macro.readout.kind == "exact" and signed and not chip.capabilities.dual_mode


def tiles(product: Product, chip: Chip) -> int:
    """Arrays that a matrix takes."""
    return -(-product.rows // chip.array.rows) * -(-product.written_cols // chip.weight_cols)


def passes(product: Product, chip: Chip) -> int:
    """Input planes of one vector."""
    return -(-product.bits // chip.macro.input.bits_per_pass)


def events(product: Product, chip: Chip) -> dict[str, int]:
    """Events of the arrays and of what recombines their sums; memory traffic is that of the operands."""
    driven = product.matrices * product.driven
    cells, planes = product.rows * product.written_cols, passes(product, chip)
    slices = chip.macro.weights.slices * chip.macro.cells_per_slice
    columns = -(-product.written_cols // chip.weight_cols)
    corrections = product.ones_vector + product.ones_column
    return {
        "weight_bits": product.matrices * product.copies * cells * slices * chip.array.bits_per_cell,
        "vectors": driven,
        "array_operations": driven * planes * tiles(product, chip),
        "array_macs": driven * -(-planes * cells // chip.macro.passes),
        "cell_operations": driven * planes * slices * cells,
        "dac_drives": driven * -(-planes * product.rows * columns // chip.macro.passes),
        "vector_operations": product.outputs * (-(-product.rows // chip.array.rows) + corrections),
        "stored_macs": product.macs,
    }


def dealt(product: Product, chip: Chip, macros: int) -> Product:
    """The product with as many copies of its matrices as so many macros hold at once, and vectors can use."""
    spare = macros // (product.matrices * tiles(product, chip))
    return replace(product, copies=max(1, min(spare, product.vectors)))


def row_seconds(chip: Chip) -> float:
    """One row of cells of an array written: the cell's time where it is known, else a cycle of the clock (assumed)."""
    write = chip.cell.write
    return write.time if write is not None and write.time else 1.0 / chip.chip.clock


def macro_seconds(product: Product, chip: Chip, macros: int) -> float:
    """Seconds that so many macros are held: matrices are dealt out among them, written and read in turn."""
    turns = -(-product.matrices * product.copies * tiles(product, chip) // macros)
    driven = -(-product.vectors // product.copies) + product.ones_vector
    read = driven * passes(product, chip) * chip.t_pass
    return turns * (min(product.rows, chip.array.rows) * row_seconds(chip) + read)


@dataclass(frozen=True)
class Way:
    """One way to multiply: seconds on its units, and joules with what leaks meanwhile; both move the same bytes."""

    seconds: float
    dynamic: float
    leaked: float

    @property
    def joules(self) -> float:
        """All joules."""
        return self.dynamic + self.leaked

    def to_json(self, times: float = 1) -> dict[str, float]:
        """Seconds and joules of so many."""
        return {"seconds": self.seconds * times, "joules": self.joules * times}


def on_vector_unit(product: Product, chip: Chip, *, lanes: int = 0, chips: float = 1) -> Way:
    """All multiply-accumulates on `lanes` (those of one core), while `chips` leak."""
    lanes = lanes or chip.core.vector.lanes
    seconds = -(-product.macs // lanes) / chip.chip.clock
    return Way(seconds, product.macs * _joules(chip)["vector_op"], seconds * _leakage(chip) * chips)


def in_arrays(product: Product, chip: Chip, macros: int, *, lanes: int = 0, chips: float = 1) -> Way:
    """One operand written, the other driven through it; lanes take the sums."""
    product = dealt(product, chip, macros)
    found, cost = events(product, chip), _joules(chip)
    sums = -(-found["vector_operations"] // (lanes or chip.core.vector.lanes)) / chip.chip.clock
    spent = {"weight_bits": "weight_bits", "array_macs": "mac", "dac_drives": "dac", "vector_operations": "vector_op"}
    joules = sum(found[event] * cost[component] for event, component in spent.items())
    seconds = macro_seconds(product, chip, macros) + sums
    return Way(seconds, joules, seconds * _leakage(chip) * chips)


def _leakage(chip: Chip) -> float:
    return leakage(chip).value or 0.0


def _joules(chip: Chip) -> dict[str, float]:
    return {name: metric.value or 0.0 for name, metric in event_energy(chip).items()}


def pays(lanes: Way, arrays: Way) -> bool:
    """Whether writing pays: the smaller product of energy and time."""
    return arrays.seconds * arrays.joules < lanes.seconds * lanes.joules
