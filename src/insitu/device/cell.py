"""The cell library: what one memory cell can hold and how well, read from presets that carry their literature."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, model_validator

from insitu.base.errors import ChipError, ConfigError, did_you_mean
from insitu.base.schema import Amperes, Config, Joules, Seconds, Siemens, Volts, load_config
from insitu.base.yaml import load_yaml
from insitu.device.laws import LAWS, law_of

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


class Retention(Config):
    """Charge that leaks: a level loses `per_decade` of itself per decade of time, or exp(-t / tau), or both."""

    per_decade: float = Field(default=0.0, ge=0, le=1, description="mean share lost per decade of (1 + t / t0)")
    sd: float = Field(default=0.0, ge=0, description="spread of that share between cells")
    t0: Seconds = Field(default=3600.0, gt=0, description="when the first decade starts")
    tau: Seconds | None = Field(default=None, gt=0, description="time constant of a leaking storage node")
    refresh: Seconds | None = Field(default=None, gt=0, description="longest time between two refreshes")


class Telegraph(Config):
    """Random telegraph noise: a trap takes `amplitude` of the current, `duty` of the time, in `share` of the cells."""

    amplitude: float = Field(gt=0, le=1)
    share: float = Field(default=1.0, ge=0, le=1)
    duty: float = Field(default=0.5, gt=0, lt=1)


class ReadNoise(Config):
    """Parts of a read's noise from first principles, beside or instead of the measured `read_sd` or `law`."""

    thermal: bool = Field(default=False, description="sqrt(4 k T g B), B = 1 / (2 t_read)")
    shot: bool = Field(default=False, description="sqrt(2 q I B)")
    flicker: float = Field(default=0.0, ge=0, description="Q of I Q sqrt(ln((t + t0 + t_read) / (2 t_read)))")
    flicker_t0: Seconds = Field(default=1.0, gt=0)
    telegraph: Telegraph | None = None


class Write(Config):
    """Write-and-verify of one cell; what is left out is not known."""

    pulses: float | None = Field(default=None, gt=0, description="mean write pulses until verify accepts")
    time: Seconds | None = Field(default=None, gt=0, description="all pulses of one cell, verify reads not counted")
    energy: Joules | None = Field(default=None, gt=0, description="all pulses of one cell")
    accept: float | None = Field(
        default=None, gt=0, le=1, description="verify accepts this far off, share of full scale"
    )


class Stuck(Config):
    """Shares of cells that keep the lowest or the highest level, or conduct nothing, whatever is programmed."""

    off: float = Field(default=0.0, ge=0, le=1)
    on: float = Field(default=0.0, ge=0, le=1)
    open: float = Field(default=0.0, ge=0, le=1, description="broken contacts: no current at all")

    @model_validator(mode="after")
    def _shares(self) -> Stuck:
        if self.off + self.on + self.open > 1.0:
            raise ValueError("shares that add up to at most 1")
        return self


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
    retention: Retention | None = Field(default=None, description="how charge leaks; omit where not known")
    noise: ReadNoise | None = Field(default=None, description="thermal, shot, 1/f and telegraph noise of a read")
    write: Write | None = Field(default=None, description="write-and-verify; omit where not known")
    stuck: Stuck | None = None
    activation: float | None = Field(default=None, gt=0, description="eV by which heat speeds up drift and retention")
    sources: dict[str, str] = Field(default_factory=dict[str, str])

    @model_validator(mode="after")
    def _accepted(self) -> CellSpec:
        """A law that was measured with one acceptance range stands for no other: nothing falls back in silence."""
        asked = self.write.accept if self.write else None
        known = LAWS[self.law].accept if self.law is not None and self.law in LAWS else None
        if asked is not None and known is not None and asked != known:
            other = next((name for name, law in LAWS.items() if law.accept == asked), None)
            way = f"; law {other} has {100 * asked:g} %" if other else ""
            raise ValueError(f"write.accept {known:g}, at which law {self.law} was measured{way}")
        return self

    @property
    def levels(self) -> int:
        """Steps from the lowest to the highest level."""
        return (1 << self.bits) - 1

    @property
    def off_ratio(self) -> float:
        """The lowest level's conductance over the highest one's."""
        return self.conductance[0] / self.conductance[1] if self.conductance else 0.0

    @property
    def conducts(self) -> bool:
        """Whether the current of a level is known."""
        return self.conductance is not None or self.read_current is not None

    @property
    def analog(self) -> bool:
        """Whether the cell's level is a physical quantity with errors, rather than exact bits."""
        return self.programming is not None or self.law is not None or self.read_sd > 0

    @property
    def moves(self) -> bool:
        """Whether levels change with time."""
        return self.drifts or self.retention is not None

    @property
    def drifts(self) -> bool:
        """Whether conductances drift."""
        return self.drift is not None or (self.law is not None and law_of(self.law).moves)

    @property
    def noisy_law(self) -> bool:
        """Whether the cell's law says how noisy a read is, level by level."""
        return self.law is not None and law_of(self.law).noisy


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
            f"one of {', '.join(cells())}, a cell's YAML file, or a cell inline",
            try_=did_you_mean(name, cells()),
        )
    file = _folder() / f"{name}.yaml"
    return load_config(f"cell {name}", CellSpec, text=file.read_text(encoding="utf-8"))


def _folder() -> Any:
    return files("insitu.device") / "presets"


def read_cell(path: Path) -> CellSpec:
    """A cell of a YAML file, as `insitu fit -o` writes it; ConfigError where it is none."""
    return load_config(path, CellSpec)


def cell_data(name: str, place: str) -> Any:
    """The cell of that name, or of a YAML file that a chip's file names at `place`, as plain data.

    ChipError where there is no such cell.
    """
    if not _is_file(name):
        load_cell(name)
        return load_yaml(f"cell {name}", text=(_folder() / f"{name}.yaml").read_text(encoding="utf-8")).data
    path = _file(name, place)
    if path is None:
        raise ChipError(f"cell {name!r}", "no such file", "the path of a cell's YAML file")
    return load_yaml(path).data


def _read_name(value: object, info: ValidationInfo) -> CellSpec:
    name = str(value)
    if _is_file(name):
        return _read_file(name, info.context["place"](("cell",)) if info.context else "")
    try:
        return load_cell(name)
    except ChipError as fault:
        raise ValueError(fault.need + "".join(f"\t{way}" for way in fault.try_)) from None


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _file(name: str, place: str) -> Path | None:
    """A path from the folder of the file that names it, or from where the user is (as `--set` means it)."""
    folder = Path(place.rpartition(":")[0]).parent
    return next((p for p in (folder / name, Path(name)) if p.is_file()), None)


def _read_file(name: str, place: str) -> CellSpec:
    path = _file(name, place)
    if path is None:
        raise ValueError("the path of a cell's YAML file; there is none")
    try:
        return read_cell(path)
    except ConfigError as error:
        raise ValueError(f"a sound cell\t{error}") from None


def _form(value: object) -> str:
    return "library" if isinstance(value, str) else "inline"


_Named = Annotated[CellSpec, BeforeValidator(_read_name, json_schema_input_type=str)]
Cell = Annotated[Annotated[CellSpec, Tag("inline")] | Annotated[_Named, Tag("library")], Discriminator(_form)]
