"""Cells of a program for a real array: a table of (x, y, value), conductances, and what each layer reads and gives.

`write_map` makes the folder that a lab programs an array from; its forms are those of the WTM2101 toolchain.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.arch.load import chip_from_json
from insitu.arch.spec import Chip
from insitu.base.errors import UsageError
from insitu.base.store import write_text
from insitu.circuit.spec import full_level
from insitu.compiler.placement_file import placement_text
from insitu.graph.graph import Graph, Node
from insitu.graph.ops.mvm import block_signs, input_codes
from insitu.isa.program import Binding, Program, Tile
from insitu.numeric.readout import WTM_BIAS_UNIT

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
BIAS_Y0, BIAS_STEP = 2049, 2  # physical row of bias row i is BIAS_Y0 + BIAS_STEP * i


@dataclass(frozen=True)
class Cells:
    """Cells of one array, sorted by column and row: `value` is what a cell holds, 0 stays erased."""

    x: Ints
    y: Ints
    value: Ints

    def __len__(self) -> int:
        return len(self.x)


def cells_of(program: Program) -> Cells:
    """Every cell that a layer or its bias takes; UsageError for programs over several macros or with sliced weights."""
    columns: list[tuple[Ints, Ints, Ints]] = []
    for section in program.sections:
        for binding in section.bindings:
            if section.core or any(t.macro for t in binding.tiles) or binding.readout.slice_bits:
                got = f"layer {binding.label} on several macros or in slices"
                raise UsageError(f"program {program.name}", got, "a program for one array of whole weights")
            for tile in binding.tiles:
                columns += [_weights(program, binding, tile), _biases(program, binding, tile)]
    empty = np.zeros(0, np.int64)
    x, y, value = (np.concatenate([empty, *(c[i] for c in columns)]) for i in range(3))
    _, first = np.unique(x << 32 | y, return_index=True)  # tiles that share cells hold the same
    return Cells(x[first], y[first], value[first])


def _grid(xs: Ints, ys: Ints, values: Array) -> tuple[Ints, Ints, Ints]:
    """A block of values [rows, cols] as columns of a table."""
    y, x = np.meshgrid(ys, xs, indexing="ij")
    return x.ravel(), y.ravel(), values.astype(np.int64).ravel()


def _weights(program: Program, binding: Binding, tile: Tile) -> tuple[Ints, Ints, Ints]:
    matrix = program.weight(binding.weight)[tile.row0 : tile.row0 + tile.rows, tile.col0 : tile.col0 + tile.cols]
    return _grid(np.arange(tile.x, tile.x + tile.cols), np.arange(tile.y, tile.y + tile.rows), matrix)


def _biases(program: Program, binding: Binding, tile: Tile) -> tuple[Ints, Ints, Ints]:
    bias = np.zeros(tile.cols, np.int64)
    if binding.bias and tile.bias_rows:
        bias = program.weight(binding.bias).astype(np.int64)[tile.col0 : tile.col0 + tile.cols]
    rows = np.arange(tile.bias0, tile.bias0 + tile.bias_rows)
    xs = np.arange(tile.x, tile.x + tile.cols)
    return _grid(xs, BIAS_Y0 + BIAS_STEP * rows, spread_bias(bias, tile.bias_rows))


def spread_bias(bias: Array, rows: int) -> Ints:
    """Bias rows [rows, cols] whose sum, driven with 128, is the bias: equal shares, what is left in the last one."""
    total = np.asarray(bias, np.int64) // WTM_BIAS_UNIT
    if rows == 0:
        return np.zeros((0, total.size), np.int64)
    share = np.sign(total) * -(-np.abs(total) // rows)
    return np.concatenate([np.repeat(share[None], rows - 1, axis=0), (total - (rows - 1) * share)[None]])


def map_text(cells: Cells) -> str:
    """One line `x,y,value` for each cell."""
    table = np.stack([cells.x, cells.y, cells.value], axis=1)
    return "".join(f"{x},{y},{v}\n" for x, y, v in table.tolist())


def conductances(cells: Cells, chip: Chip) -> npt.NDArray[np.float64]:
    """Conductances [cells, 2] in siemens of the positive and the negative side that hold each value.

    Full scale is the cell's conductance where its preset has one, else its read current over its read voltage.
    """
    off, full = _span(chip)
    level = np.abs(cells.value) / full_level(chip)
    held = off + level * (full - off)
    return np.stack([np.where(cells.value > 0, held, off), np.where(cells.value < 0, held, off)], axis=1)


def _span(chip: Chip) -> tuple[float, float]:
    cell = chip.cell
    if cell.conductance is not None:
        return float(cell.conductance[0]), float(cell.conductance[1])
    volts = cell.read_voltage if cell.read_voltage is not None else chip.technology.supply
    if cell.read_current is None:
        raise UsageError(f"cell {cell.name}", "neither a conductance nor a read current", "one of them in its preset")
    return 0.0, float(cell.read_current) / float(volts)


def conductance_text(cells: Cells, chip: Chip) -> str:
    """One line `x,y,g_plus,g_minus` for each cell, in siemens."""
    rows = zip(cells.x.tolist(), cells.y.tolist(), conductances(cells, chip).tolist(), strict=True)
    return "".join(f"{x},{y},{plus:.6g},{minus:.6g}\n" for x, y, (plus, minus) in rows)


def write_map(program: Program, folder: str | Path) -> Path:
    """Write layers.txt, map.csv and conductances.csv of a program; returns the folder."""
    folder, cells = Path(folder), cells_of(program)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "layers.txt", placement_text(program))
    write_text(folder / "map.csv", map_text(cells))
    write_text(folder / "conductances.csv", conductance_text(cells, chip_from_json(program.chip)))
    return folder


# what each layer reads and gives


def array_layers(graph: Graph) -> list[Node]:
    """The nodes that live in arrays, in order."""
    return [n for n in graph.nodes if n.op in ("Conv", "MatMul") and n.inputs[1] in graph.constants]


def write_layers(
    graph: Graph, values: Mapping[str, Array], folder: str | Path, *, net: int = 0, driven: bool = True
) -> list[Path]:
    """Write `net0/<i>_<layer>/round<i-1>/input0.txt` and `output0.txt` of every array layer; returns the files.

    `values` holds codes (samples, *shape) by value name.  A line is one sample; maps are written in the order W, H, C.
    `driven`: inputs as the rows are driven with, after shift and offset; else the codes before.
    """
    files: list[Path] = []
    for index, node in enumerate(array_layers(graph)):
        label = re.sub(r"[^A-Za-z0-9_.+-]", "_", node.name)  # names may hold what paths are made of
        place = Path(folder) / f"net{net}" / f"{index + 1}_{label}" / f"round{index}"
        place.mkdir(parents=True, exist_ok=True)
        x = values[node.inputs[0]]
        x = _driven(x.astype(np.int64), node) if driven else x
        for name, codes in (("input0", x), ("output0", values[node.output])):
            files.append(place / f"{name}.txt")
            write_text(files[-1], codes_text(codes))
    return files


def _driven(x: Array, node: Node) -> Array:
    """Driven codes (samples, *shape) of a layer's input, those of further blocks of rows behind it."""
    blocks = [input_codes(x, node, sign=sign) for sign in block_signs(node)]
    return np.concatenate(blocks, axis=-1 if node.op == "MatMul" else 2)


def codes_text(codes: Array) -> str:
    """Codes (samples, 1, *shape) as lines of numbers, a map's in the order W, H, C."""
    rank = codes.ndim - 2
    order = (0, 1, *range(codes.ndim - 1, 1, -1)) if rank > 1 else tuple(range(codes.ndim))
    rows = codes.transpose(order).reshape(len(codes), -1)
    return "".join(" ".join(map(str, row)) + "\n" for row in rows.tolist())
