"""Blocks of samples that a session runs at once: small enough for caches, enough of them for threads to share.

Sizes follow from the program alone, so that blocks are the same on every machine.
"""

from __future__ import annotations

from math import prod

import numpy as np

from insitu.isa.check_data import BANKS
from insitu.isa.program import Binding, Command, Program, Section, chip_of_space
from insitu.numeric.slicing import digit_shifts
from insitu.sim.counts import executions
from insitu.sim.poly import number, whole

BLOCK_BYTES = 24 << 20  # memory images and gathered windows of a block
LEAST_BYTES = 4 << 20  # of a part of a call, or
LEAST_PRODUCTS = 500_000  # of cells to each of its commands: four times as long as the command itself takes
MAX_BLOCK = 64
PARTS = 4  # blocks that a call is cut into where it is large enough, for threads to share


def block_size(program: Program, samples: int) -> int:
    """Samples of a block: within BLOCK_BYTES, all of nearly equal size, PARTS where a part outweighs its commands."""
    each = _sample_bytes(program)
    most = int(np.clip(BLOCK_BYTES // each, 1, MAX_BLOCK))
    worth = max(samples * each // LEAST_BYTES, int(samples * _products_a_command(program) // LEAST_PRODUCTS), 1)
    parts = max(-(-samples // most), min(PARTS, 1 << worth.bit_length() - 1))
    even = -(-parts // PARTS) * PARTS if parts > PARTS else parts
    return -(-max(samples, 1) // even)


def block_bytes(program: Program, samples: int) -> int:
    """Bytes of the memory images and windows of one block of a run of `samples`."""
    return block_size(program, samples) * _sample_bytes(program)


def _sample_bytes(program: Program) -> int:
    windows = max((_largest_window(section) for section in program.sections), default=0)
    return max(1, sum(n for s, n in program.spaces.items() if chip_of_space(s)[0] != BANKS) + 4 * windows)


def _largest_window(section: Section) -> int:
    """Elements an MVM gathers at most, over the trips of the loops around it."""
    times = zip(section.code, executions(section.code), strict=True)
    return max((whole(n) * _gathered(section, c) for c, n in times if c.op in ("MVM", "GEMV")), default=0)


def _gathered(section: Section, command: Command) -> int:
    return prod(whole(number(n)) for n in section.descriptors[int(command.args[1])].sizes)


def _products_a_command(program: Program) -> float:
    """Products of a cell with a plane of inputs that a sample's commands do, by the number of commands."""
    commands = products = 0
    for section in program.sections:
        for command, times in zip(section.code, executions(section.code), strict=True):
            commands += whole(times)
            if command.op == "MVM":
                binding = section.bindings[int(command.args[2])]
                products += whole(times) * _gathered(section, command) * binding.cols * _reads(binding)
    return products / max(commands, 1)


def _reads(binding: Binding) -> int:
    """Reads of a column: planes of inputs times slices of weights."""
    readout = binding.readout
    if readout.kind != "adc":
        return 1
    return len(digit_shifts(*readout.plane_bits)) * len(readout.slice_shifts)
