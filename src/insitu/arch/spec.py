"""The schema of a chip description: chip > tile > core > macro > array > cell, and what it costs."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from insitu.base.schema import Bytes, BytesPerSecond, Config, Hertz, Joules, Seconds, SquareMetres, Watts
from insitu.circuit.spec import Array, Calibration, Macro, PhysicsSpec, Technology, usual_range
from insitu.circuit.times import pass_seconds
from insitu.device.cell import Cell

MODELLED_TIME = "derived: gate delays of the process (insitu.circuit.times)"
RAM_WORD = 4  # bytes a cycle of a memory whose bandwidth is not given


class Vector(Config):
    """The digital unit beside the macros."""

    lanes: int = Field(ge=1)
    format: Literal["int8", "int16", "fp16", "fp32"] = "int8"
    luts: int = Field(default=0, ge=0, description="tables it holds, each loaded before its use; 0: not said, and free")


class Core(Config):
    """Macros that one command stream drives, with their vector unit and working memory."""

    macros: int = Field(ge=1)
    vector: Vector
    sram: Bytes = Field(default=0, ge=0)


class Tile(Config):
    """Cores that share a network stop."""

    cores: int = Field(default=1, ge=1)


class ChipLevel(Config):
    """The die: tiles, clock, and the processor that starts programs."""

    tiles: int = Field(default=1, ge=1)
    clock: Hertz = Field(gt=0)
    host: str | None = None


class Memory(Config):
    """A memory that all cores share; without `bandwidth`, one 32-bit word a clock cycle."""

    kind: Literal["sram", "edram", "dram", "flash"]
    size: Bytes = Field(gt=0)
    bandwidth: BytesPerSecond = Field(default=0.0, ge=0, description="omit for one 32-bit word a clock cycle")
    row_hits: float = Field(
        default=1.0, ge=0, le=1, description="dram: share of bursts that find their row open; streams find all but one"
    )


class Capabilities(Config):
    """What the legaliser may count on."""

    wload: bool = Field(description="weights can be loaded while a program runs")
    mma: bool = Field(description="matrix products of two run-time operands")
    scales: Literal["any", "power_of_two"] = "any"
    gemv: bool = Field(default=False, description="the memory called banks multiplies the weight matrices it holds")
    dual_mode: bool = Field(default=False, description="macros that hold no weights can lengthen the ram")
    floats: bool = Field(default=False, description="macros and vector unit also compute with fp32 numbers")


class Links(Config):
    """What joins the chips of a system: each sends to any other over its own link."""

    bandwidth: BytesPerSecond = Field(default=8e9, gt=0, description="bytes a second out of one chip (assumed)")
    latency: Seconds = Field(default=1e-6, ge=0, description="from the request to the first byte (assumed)")


class System(Config):
    """Several chips of this kind side by side; the compiler says how many it needs."""

    links: Links = Links()


class Energy(Config):
    """Energy of one event; what is omitted is modelled from the geometry (insitu.arch.cost)."""

    mac: Joules | None = Field(default=None, ge=0, description="one weight times one input code")
    dac: Joules | None = Field(default=None, ge=0, description="one row driven with one input code, all its passes")
    adc: Joules | None = Field(default=None, ge=0, description="one conversion")
    shift_add: Joules | None = Field(default=None, ge=0, description="one partial code added")
    vector_op: Joules | None = Field(default=None, ge=0, description="one element through one vector operation")
    ram_read_byte: Joules | None = Field(default=None, ge=0)
    ram_write_byte: Joules | None = Field(default=None, ge=0)
    weight_bits: Joules | None = Field(default=None, ge=0, description="one bit of a weight written")
    store_read_byte: Joules | None = Field(default=None, ge=0, description="one byte out of the weight store")
    bank_read_byte: Joules | None = Field(default=None, ge=0, description="one byte of a weight out of its memory bank")
    link_byte: Joules | None = Field(default=None, ge=0, description="one byte from one chip to another")
    control: Joules | None = Field(default=None, ge=0, description="one command fetched, decoded and issued")
    leakage: Watts | None = Field(default=None, ge=0)
    host_idle: Watts | None = Field(default=None, ge=0, description="the host processor while it waits")
    awake: Watts | None = Field(default=None, ge=0, description="all that programs keep awake, beside their events")


class Area(Config):
    """Areas that are known; what is omitted is modelled."""

    macro: SquareMetres | None = Field(default=None, gt=0, description="one macro with its periphery")
    die: SquareMetres | None = Field(default=None, gt=0)


class Package(Config):
    """What carries heat away: `technology.temperature` is that of the surroundings."""

    resistance: float = Field(default=30.0, ge=0, description="kelvin per watt, die to surroundings (assumed)")


class Component(Config):
    """A block that a level has beside its macros, for chips whose table of components is published."""

    level: Literal["chip", "tile", "core", "macro"]
    count: int = Field(default=1, ge=1, description="of them in one unit of that level")
    power: Watts = Field(default=0.0, ge=0, description="one of them, busy")
    area: SquareMetres = Field(default=0.0, ge=0, description="one of them")


class Chip(Config):
    """A chip description, complete: the single source of what the compiler may use and the simulators cost."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="small letters, digits and . _ -, such as my-chip")
    origin: Literal["vendor", "paper", "parametric"]
    technology: Technology
    cell: Cell
    array: Array
    macro: Macro
    core: Core
    tile: Tile = Tile()
    chip: ChipLevel
    memories: dict[str, Memory] = Field(default_factory=dict[str, Memory])
    capabilities: Capabilities
    calibration: Calibration = Calibration()
    system: System = System()
    energy: Energy = Energy()
    area: Area = Area()
    package: Package = Package()
    components: dict[str, Component] = Field(default_factory=dict[str, Component])
    physics: PhysicsSpec = PhysicsSpec()
    sources: dict[str, str] = Field(default_factory=dict[str, str])

    @model_validator(mode="after")
    def _fill_bandwidth(self) -> Self:
        default = RAM_WORD * self.chip.clock
        filled = {
            n: m if m.bandwidth else m.model_copy(update={"bandwidth": default}) for n, m in self.memories.items()
        }
        return self if filled == self.memories else self.model_copy(update={"memories": filled})

    @model_validator(mode="after")
    def _fill_cell_range(self) -> Self:
        if "cell_range" in self.array.model_fields_set:
            return self
        found = usual_range(self.array, self.macro.weights)
        return self.model_copy(update={"array": self.array.model_copy(update={"cell_range": found})})

    @model_validator(mode="after")
    def _fill_t_read(self) -> Self:
        if self.macro.t_read:
            return self
        macro = self.macro.model_copy(update={"t_read": pass_seconds(self)})
        sources = {**self.sources, "macro.t_read": MODELLED_TIME}
        return self.model_copy(update={"macro": macro, "sources": sources})

    @property
    def cores(self) -> int:
        """Cores of the whole chip."""
        return self.chip.tiles * self.tile.cores

    @property
    def store_bandwidth(self) -> float:
        """Bytes a second at which weights are loaded: of the memory called weights, else of ram."""
        return self.memories["weights" if "weights" in self.memories else "ram"].bandwidth

    @property
    def macros(self) -> int:
        """Macros of the whole chip; macro m belongs to core m // core.macros."""
        return self.cores * self.core.macros

    def count_of(self, level: Literal["chip", "tile", "core", "macro"]) -> int:
        """How many units of a level the chip has."""
        return {"chip": 1, "tile": self.chip.tiles, "core": self.cores, "macro": self.macros}[level]

    @property
    def rows_per_region(self) -> int:
        """Rows of one array: no weight tile may cross a multiple of it."""
        return self.array.rows

    @property
    def weight_rows(self) -> int:
        """Rows of one macro, its arrays stacked in y (bias rows not counted)."""
        return self.array.rows * self.macro.arrays

    @property
    def weight_cols(self) -> int:
        """Usable output columns of one macro."""
        return self.array.cols - self.macro.reserved_columns

    @property
    def weight_range(self) -> tuple[int, int]:
        """The integers a weight can be."""
        return self.array.cell_range

    @property
    def capacity(self) -> int:
        """Weights that the whole chip holds; one byte each in memory banks."""
        if self.capabilities.gemv:
            return int(self.memories["banks"].size)
        return self.macros * self.weight_rows * self.weight_cols

    @property
    def macro_bytes(self) -> int:
        """Bytes that the cells of one macro hold as memory."""
        cells = self.weight_rows * self.array.cols
        return cells * self.macro.weights.slices * self.array.bits_per_cell // 8

    @property
    def input_range(self) -> tuple[int, int]:
        """The input codes of the row drivers."""
        bits = self.macro.input.bits
        return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if self.macro.input.signed else (0, (1 << bits) - 1)

    @property
    def slice_bits(self) -> tuple[int, ...]:
        """Bits held by each slice of a weight, least significant first."""
        return (self.array.bits_per_cell,) * self.macro.weights.slices

    @property
    def plane_bits(self) -> tuple[int, ...]:
        """Bits applied in each input pass, least significant first."""
        given = self.macro.input
        if self.macro.integrate:
            return (given.bits,)
        return tuple(min(given.bits_per_pass, given.bits - at) for at in range(0, given.bits, given.bits_per_pass))

    @property
    def t_vector(self) -> float:
        """Seconds one macro takes for one input vector on one tile, with all passes, averaged reads and conversions."""
        return self.macro.passes * self.calibration.reads * self.t_pass

    @property
    def t_pass(self) -> float:
        """Seconds of one input pass, read once, and then of the conversions of the columns that share a converter."""
        return self.macro.t_read + self.macro.columns_per_adc * (self.macro.t_adc or 0.0)

    @property
    def peak_tops(self) -> float:
        """10^12 operations a second, 2 a MAC: macros read full arrays, once an output, converting the last one."""
        conversions = self.macro.columns_per_adc * (self.macro.t_adc or 0.0)
        vectors = self.macros / (self.macro.passes * max(self.macro.t_read, conversions))
        return 2e-12 * self.array.rows * self.array.cols * vectors
