"""The cell library: what one memory cell can hold and how well, read from presets that carry their literature."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from insitu.base.errors import ChipError, did_you_mean
from insitu.base.schema import Amperes, Config, Seconds, Siemens, Volts, load_config

CellKind = Literal["nor_flash", "sonos", "nand", "reram", "pcm", "mram", "fefet", "sram", "dram", "gain_cell"]


class Programming(Config):
    """Residual error of write-and-verify.

    `sd` are the coefficients (constant first) of a polynomial in r = the cell's level over its full scale; its value is
    a standard deviation as a fraction of full scale.  Each refine pass multiplies it by `refine`; `floor` is what no
    number of passes removes.
    """

    sd: tuple[float, ...] = Field(description="polynomial coefficients, constant first")
    refine: float = Field(default=1.0, ge=0, le=1, description="share of the error that one refine pass leaves")
    floor: float = Field(default=0.0, ge=0, description="standard deviation that stays, as a fraction of full scale")


class Drift(Config):
    """A level falls as ((t + t0) / t0)^-nu; nu differs from cell to cell."""

    nu: float = Field(ge=0, description="mean exponent")
    nu_sd: float = Field(default=0.0, ge=0)
    t0: Seconds = Field(default=1.0, gt=0, description="when the programmed level was read")


class Stuck(Config):
    """Shares of cells that keep the lowest or the highest level whatever is programmed."""

    off: float = Field(default=0.0, ge=0, le=1)
    on: float = Field(default=0.0, ge=0, le=1)


class CellSpec(Config):
    """One memory cell: what it is, how much it holds, how large it is, and its errors."""

    name: str
    kind: CellKind
    bits: int = Field(ge=1, le=12, description="bits one cell can hold")
    nonvolatile: bool
    erased_exact: bool = Field(
        default=False, description="a cell that holds zero stays erased: no programming error, no read noise"
    )
    area_f2: float = Field(gt=0, description="cell area in squares of the node's feature size")
    endurance: float | None = Field(default=None, gt=0, description="write cycles; omit where not known")
    read_current: Amperes | None = Field(default=None, gt=0, description="cell current at full input and full level")
    read_voltage: Volts | None = Field(default=None, gt=0, description="across the cell; omit for the chip's supply")
    read_pulse: Seconds | None = Field(default=None, gt=0, description="current flows this long; omit for macro.t_read")
    conductance: tuple[Siemens, Siemens] | None = Field(default=None, description="off and on conductance")
    programming: Programming | None = Field(default=None, description="omit for cells that hold exact bits")
    read_sd: float = Field(default=0.0, ge=0, description="read noise of one cell in one read, fraction of full scale")
    law: str | None = Field(
        default=None, description="published statistics by name (insitu.device.laws), instead of programming and drift"
    )
    drift: Drift | None = Field(default=None, description="how levels fall in time; omit where not known")
    stuck: Stuck | None = None
    activation: float | None = Field(default=None, gt=0, description="eV by which heat speeds up drift")
    sources: dict[str, str] = Field(default_factory=dict[str, str])

    @property
    def levels(self) -> int:
        """Steps from the lowest to the highest level."""
        return (1 << self.bits) - 1

    @property
    def off_ratio(self) -> float:
        """The lowest level's conductance over the highest one's."""
        return self.conductance[0] / self.conductance[1] if self.conductance else 0.0

    @property
    def analog(self) -> bool:
        """Whether the cell's level is a physical quantity with errors, rather than exact bits."""
        return self.programming is not None or self.law is not None or self.read_sd > 0

    @property
    def moves(self) -> bool:
        """Whether levels change with time."""
        return self.drift is not None or (self.law is not None and self.law not in ("pcm-joshi", "reram-milo"))


def cells() -> tuple[str, ...]:
    """The names in the cell library."""
    return tuple(sorted(f.name.removesuffix(".yaml") for f in _folder().iterdir() if f.name.endswith(".yaml")))


@cache
def load_cell(name: str) -> CellSpec:
    """A cell of the library."""
    if name not in cells():
        raise ChipError(
            f"cell {name!r}",
            "unknown",
            f"one of {', '.join(cells())}, or a cell inline",
            try_=did_you_mean(name, cells()),
        )
    file = _folder() / f"{name}.yaml"
    return load_config(f"cell {name}", CellSpec, text=file.read_text(encoding="utf-8"))


def _folder() -> Any:
    return files("insitu.device") / "presets"


def _read_name(value: object) -> CellSpec:
    try:
        return load_cell(str(value))
    except ChipError as fault:
        raise ValueError(fault.need + "".join(f"\t{way}" for way in fault.try_)) from None


def _form(value: object) -> str:
    return "library" if isinstance(value, str) else "inline"


_Named = Annotated[CellSpec, BeforeValidator(_read_name, json_schema_input_type=str)]
Cell = Annotated[Annotated[CellSpec, Tag("inline")] | Annotated[_Named, Tag("library")], Discriminator(_form)]
