"""A macro as data: its array, drivers, readout, calibration and the constants of its physics."""

from __future__ import annotations

from typing import Literal, Protocol

from pydantic import Field

from insitu.base.schema import Config, Kelvin, Metres, Ohms, Seconds, Volts
from insitu.device.cell import CellSpec
from insitu.numeric.slicing import most_weight

ReadoutKind = Literal["exact", "adc", "wtm2101"]
Encoding = Literal["signed_cell", "differential_pair", "offset_column", "twos_complement"]
Referred = Literal["adc", "bitline"]
BYTE = 127  # the largest weight code of 8 bits


class Technology(Config):
    """The process."""

    node: Metres = Field(gt=0)
    supply: Volts = Field(gt=0)
    temperature: Kelvin = Field(default=300.0, gt=0)


class Array(Config):
    """One array, counted in weights: `rows` inputs by `cols` outputs; a weight is `macro.weights.slices` cells wide."""

    rows: int = Field(ge=1, le=1 << 20)
    cols: int = Field(ge=1, le=1 << 20, description="output columns, each of all the cells of a weight")
    bits_per_cell: int = Field(ge=1, le=12)
    cell_range: tuple[int, int] = Field(
        default=(0, 0),
        description="[lowest, highest] integer a weight can be, all its slices together; omit for what they hold, "
        "at most 8 bits",
    )


class Input(Config):
    """The row drivers: codes of `bits`, applied `bits_per_pass` at a time."""

    bits: int = Field(ge=1, le=16)
    signed: bool
    bits_per_pass: int = Field(ge=1, le=16)


class Weights(Config):
    """How a signed weight becomes cells."""

    encoding: Encoding
    slices: int = Field(default=1, ge=1, le=16)
    slice_shift: int = Field(
        default=0,
        ge=0,
        le=12,
        description="bits from one slice of a weight to the next; 0: as wide as cells, which holds most codes.  Closer "
        "ones hold fewer codes, of which cells err less.  One slice has no next",
    )

    @property
    def apart(self) -> int:
        """Bits from one slice to the next where that is not as wide as cells; else 0."""
        return self.slice_shift if self.slices > 1 else 0


class Readout(Config):
    """What a column sum becomes; see insitu.numeric.readout.  For an ideal readout write {kind: exact}."""

    kind: ReadoutKind
    bits: int = Field(default=32, ge=1, le=32, description="code width; of a digital sum, its register")
    signed: bool = True
    gain: tuple[int, int] | None = Field(default=None, description="[lowest, highest] column gain G, powers of two")


class Macro(Config):
    """Arrays stacked in y that share columns, bias rows and converters, so that they work one at a time."""

    arrays: int = Field(default=1, ge=1)
    bias_rows: int = Field(default=0, ge=0)
    reserved_columns: int = Field(default=0, ge=0, description="leading columns that stay unused")
    input: Input
    weights: Weights
    readout: Readout
    integrate: bool = Field(
        default=False, description="input planes add up in the array before one conversion, instead of one each"
    )
    adder: Literal["tree", "per_cell"] = Field(
        default="tree", description="exact readouts: adder trees beside the cells, or an adder with registers in each"
    )
    columns_per_adc: int = Field(default=1, ge=1, description="bitlines that share one converter")
    converter: Literal["sar", "flash", "ramp", "cco"] | None = Field(
        default=None, description="kind of converter; omit for the mean of published macros"
    )
    costs: Literal["calibrated", "components"] = Field(
        default="calibrated", description="energies from constants fitted to silicon, or summed over component models"
    )
    pulses: bool = Field(default=False, description="inputs are pulses as long as their codes, not voltages")
    t_read: Seconds = Field(
        default=0.0, gt=0, description="one array read of one input pass, without t_adc; omit for the modelled time"
    )
    t_adc: Seconds | None = Field(default=None, gt=0, description="one conversion; omit where t_read includes it")

    @property
    def passes(self) -> int:
        """Input planes of one vector."""
        return -(-self.input.bits // self.input.bits_per_pass)

    @property
    def conversions(self) -> int:
        """Conversions of one bitline for one vector, read once."""
        return 1 if self.integrate else self.passes

    @property
    def cells_per_slice(self) -> int:
        """Cells that stand for one slice of one weight."""
        return 2 if self.weights.encoding == "differential_pair" else 1


class Calibration(Config):
    """The chip's own procedures."""

    refine_passes: int = Field(default=0, ge=0, le=16, description="program-measure-adjust rounds after programming")
    reads: int = Field(default=1, ge=1, le=64, description="reads averaged for one output")
    drift_compensation: bool = Field(
        default=False, description="outputs are scaled by what known inputs have lost since programming"
    )
    drift_ahead: Seconds = Field(
        default=0.0, ge=0, description="levels are programmed so that this long after they stand in proportion"
    )
    column_offset: bool = Field(default=False, description="measured column offsets are subtracted")
    column_gain: bool = Field(
        default=False,
        description="after programming, gain and offset of each column are measured on known inputs and trimmed",
    )
    column_drift: bool = Field(
        default=False,
        description="the same, measured again when the chip is used: each column makes up for its own drift",
    )
    spare_columns: bool = Field(
        default=False,
        description="after programming, macro.reserved_columns replace the columns whose cells came out worst",
    )
    spare_rows: bool = Field(
        default=False,
        description="rows that a layer leaves empty in its arrays hold copies of it, whose sums the column adds up",
    )
    last_layer: bool = Field(
        default=False,
        description="after a trial on calibration inputs the last layer is solved again for the chip, and reprogrammed",
    )
    known_inputs: int = Field(default=64, ge=4, le=1024, description="inputs that columns are measured with")
    known_reads: int = Field(default=4, ge=1, le=1024, description="times each of them is read")

    @property
    def trims(self) -> bool:
        """Whether columns are measured one by one."""
        return self.column_gain or self.column_drift


class ColumnGain(Config):
    """Gain of each column: mean + a part common to a bank of columns + its own part; refine passes close in on 1."""

    mean: float = Field(default=1.0, gt=0)
    bank_sd: float = Field(default=0.0, ge=0)
    bank_shape: Literal["normal", "uniform"] = Field(
        default="normal",
        description="of the common part; uniform (mean +- sqrt(3) bank_sd) where only limits are known",
    )
    bank_columns: int = Field(default=1, ge=1)
    sd: float = Field(default=0.0, ge=0)
    refine: float = Field(default=1.0, ge=0, le=1, description="share of (gain - 1) that one refine pass leaves")


class ColumnOffset(Config):
    """Offset of each column in output codes.

    Referred to the ADC it is that many codes at any gain; referred to the bitline it is that many codes where one code
    is `step` units of the column sum, and shrinks as the step grows.
    """

    sd: float = Field(ge=0, description="output codes")
    refine: float = Field(default=1.0, ge=0, le=1, description="share that one refine pass leaves")
    compensated: float = Field(default=0.0, ge=0, le=1, description="share that column-offset compensation leaves")
    referred: Referred = "adc"
    step: float = Field(default=1.0, gt=0, description="units of the column sum per code where sd was measured")


class AdcNoise(Config):
    """Noise of one conversion in output codes; referred as ColumnOffset's."""

    sd: float = Field(ge=0, description="output codes, one read")
    referred: Referred = "adc"
    step: float = Field(default=1.0, gt=0, description="units of the column sum per code where sd was measured")


class DacErrors(Config):
    """Row drivers: a bow in their transfer, and gains that differ from row to row."""

    bow: float = Field(default=0.0, ge=-0.25, le=0.25, description="share of full scale the middle is off by")
    row_sd: float = Field(default=0.0, ge=0, description="spread of the drivers' gains")


class AdcErrors(Config):
    """Converters: each has its own offset, gain and nonlinearity; `macro.columns_per_adc` bitlines share one."""

    offset: float = Field(default=0.0, ge=0, description="spread of offsets in codes, before compensation")
    gain: float = Field(default=0.0, ge=0, description="spread of gains, a share")
    inl: float = Field(default=0.0, ge=0, description="spread of the bow's peak, in codes")
    dnl: float = Field(default=0.0, ge=0, description="spread of the widths of steps, in codes")


class WireSpec(Config):
    """Resistance of one wire segment between neighbouring cells, and how its effect is found."""

    row: Ohms = Field(gt=0)
    column: Ohms = Field(gt=0)
    exact: bool = Field(default=False, description="solve the network, which takes seconds an array")


class PhysicsSpec(Config):
    """Effects of the periphery; those of cells are in the cell."""

    wires: WireSpec | None = None
    dac: DacErrors | None = None
    adc: AdcErrors | None = None
    column_gain: ColumnGain | None = None
    column_offset: ColumnOffset | None = None
    adc_noise: AdcNoise | None = None


class MacroChip(Protocol):
    """The part of a chip that circuits look at; insitu.arch.spec.Chip has it."""

    @property
    def name(self) -> str: ...
    @property
    def technology(self) -> Technology: ...
    @property
    def cell(self) -> CellSpec: ...
    @property
    def array(self) -> Array: ...
    @property
    def macro(self) -> Macro: ...
    @property
    def calibration(self) -> Calibration: ...
    @property
    def physics(self) -> PhysicsSpec: ...


def holdable(array: Array, weights: Weights) -> tuple[int, int]:
    """The lowest and the highest integer that the slices of a weight can hold."""
    total = array.bits_per_cell * weights.slices
    top = most_weight(array.bits_per_cell, weights.slices, weights.apart) if weights.apart else (1 << total) - 1
    match weights.encoding:
        case "twos_complement" | "offset_column":
            return -(1 << (total - 1)), (1 << (total - 1)) - 1
        case "differential_pair":
            return -top, top
        case "signed_cell":  # both signs, and a margin above full scale as wtm2101 has (275 of 255)
            return -top - top // 8, top + top // 8


def usual_range(array: Array, weights: Weights) -> tuple[int, int]:
    """The range of weights where a chip gives none: what the slices hold, at most 8 bits, symmetric where they are."""
    low, high = holdable(array, weights)
    return max(low, -BYTE if high == -low else -BYTE - 1), min(high, BYTE)


def full_level(chip: MacroChip) -> float:
    """The level that the whole window of a cell's conductance stands for (decision 0045).

    A cell that holds a weight alone spreads the chip's weights over its window; slices fill theirs.
    """
    levels = (1 << chip.array.bits_per_cell) - 1
    if chip.macro.weights.slices > 1 or chip.macro.weights.encoding == "offset_column":
        return float(levels)
    return float(min(levels, max(abs(end) for end in chip.array.cell_range)))
