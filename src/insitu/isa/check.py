"""The static check: what must hold of a Program before it is saved or run, all faults in one error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from insitu.base.errors import ProgramError
from insitu.isa.calls import call_faults, written_out
from insitu.isa.check_data import bank_faults, data_faults
from insitu.isa.check_loads import load_faults
from insitu.isa.check_memory import memory_faults
from insitu.isa.check_operands import operand_faults
from insitu.isa.check_order import order_faults
from insitu.isa.check_setup import setup_faults
from insitu.isa.check_stored import stored_faults
from insitu.isa.check_tiles import tile_faults
from insitu.isa.encoding import encode_command
from insitu.isa.fault import Fault, command_name, core_name
from insitu.isa.program import MAX_DIMS, MAX_LOOPS, Binding, Command, Program, Section
from insitu.isa.table import instruction

SHOWN = 50
Checks = tuple[Callable[[Program], Iterator[Fault]], ...]


def check_program(program: Program) -> None:
    """Raise one ProgramError that lists every broken constraint of the instruction table."""
    faults = find_faults(program)
    if not faults:
        return
    lines = [f"  {fault}" for fault in faults[:SHOWN]]
    if len(faults) > SHOWN:
        lines.append(f"  and {len(faults) - SHOWN} more")
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    raise ProgramError(f"program {program.name}", "\n".join([count, *lines]))


def find_faults(program: Program) -> list[Fault]:
    """Every broken constraint; sizes bound at run time are taken at their largest, orderings also at 1.

    Where there are calls, commands are numbered as in the code written out.
    """
    called = [fault for section in program.sections for fault in call_faults(section)]
    if called:
        return called
    program = written_out(program)
    faults = [*structure_faults(program)] or [f for s in program.sections for f in data_faults(program, s)]
    if faults:
        return faults
    largest = program.bind(program.sizes)
    for check in (bank_faults, memory_faults, operand_faults, tile_faults, stored_faults, load_faults, setup_faults):
        faults.extend(check(largest))
    if not any(fault.rule[0] in "DM" for fault in faults):
        smallest = [program.bind(dict.fromkeys(program.sizes, 1))] if program.sizes else []
        faults.extend(fault for bound in (largest, *smallest) for fault in order_faults(bound))
    return list(dict.fromkeys(faults))


# structure: all that must hold before the other checks can look things up


def structure_faults(program: Program) -> Iterator[Fault]:
    """Faults of names, tables, operands and loops."""
    yield from _name_faults(program)
    cores = _cores(program.chip)
    seen: set[tuple[int, int]] = set()
    for section in program.sections:
        place = (section.chip, section.core)
        if place in seen:
            yield Fault("S1", core_name(section), "a second section")
        if section.core < 0 or section.chip < 0 or (cores is not None and section.core >= cores):
            yield Fault("S1", core_name(section), f"no such core, of {cores}")
        seen.add(place)
        yield from _table_faults(program, section)
        yield from _code_faults(program, section)


def _cores(chip: Mapping[str, Any]) -> int | None:
    """The cores of a chip; none where its description does not say."""
    try:
        return int(chip["chip"]["tiles"]) * int(chip["tile"]["cores"])
    except (KeyError, TypeError, ValueError):
        return None


def _name_faults(program: Program) -> Iterator[Fault]:
    names = [s.name for s in program.symbols]
    for name in sorted({n for n in names if names.count(n) > 1} if len(set(names)) < len(names) else ()):
        yield Fault("S5", f"symbol {name}", "two symbols of this name")
    for symbol in program.symbols:
        if symbol.weight and symbol.weight not in program.weights:
            yield Fault("S5", f"symbol {symbol.name}", f"weight {symbol.weight!r}")
    for value, at in program.values.items():
        if at.symbol not in names:
            yield Fault("S5", f"value {value}", f"symbol {at.symbol!r}")
    for name, size in program.sizes.items():
        if size < 1:
            yield Fault("S5", f"size {name}", f"at most {size}")


def _table_faults(program: Program, section: Section) -> Iterator[Fault]:
    names = {s.name for s in program.symbols}
    for i, d in enumerate(section.descriptors):
        where = f"{core_name(section)} d{i}"
        if d.symbol not in names:
            yield Fault("S5", where, f"symbol {d.symbol!r}")
        unknown = [n for n in d.sizes if isinstance(n, str) and n not in program.sizes]
        if unknown:
            yield Fault("S5", where, f"size {unknown[0]!r}")
        if (
            len(d.sizes) > MAX_DIMS
            or len(d.sizes) != len(d.strides)
            or any(n < 1 for n in d.sizes if isinstance(n, int))
        ):
            yield Fault("D1", where, f"sizes {d.sizes}, strides {d.strides}")
    for i, binding in enumerate(section.bindings):
        for name in (n for n in _weights_of(binding) if n not in program.weights):
            yield Fault("S5", f"{core_name(section)} b{i} ({binding.label})", f"weight {name!r}")
    for i, host in enumerate(section.hosts):
        for value in (*host.inputs, *host.outputs):
            if not -1 <= value.descriptor < len(section.descriptors):
                where = f"{core_name(section)} h{i} ({host.label})"
                yield Fault("S2", where, f"{value.name} d{value.descriptor} of {len(section.descriptors)}")
    for i, vector in enumerate(section.vectors):
        where = f"{core_name(section)} v{i} ({vector.label})"
        if vector.lut and vector.lut not in program.weights:
            yield Fault("S5", where, f"weight {vector.lut!r}")
        for index in (vector.multiplier, vector.shift):
            if index is not None and not 0 <= index < len(section.descriptors):
                yield Fault("S2", where, f"multiplier or shift d{index} of {len(section.descriptors)}")


def _weights_of(binding: Binding) -> list[str]:
    """The names of all weights a binding uses."""
    readout, post = binding.readout, binding.post
    settings = (post.multiplier, post.shift, readout.multiplier, readout.shift, readout.gain)
    return [
        binding.weight,
        *(n for n in (binding.bias, binding.expected) if n),
        *(s for s in settings if isinstance(s, str)),
    ]


def _code_faults(program: Program, section: Section) -> Iterator[Fault]:
    opened: list[str] = []  # LOOP and PRED around the command
    names = {name: i for i, name in enumerate(sorted(program.sizes))}
    for index, command in enumerate(section.code):
        where = command_name(section, index, command)
        if command.op in ENDS:
            yield from _end_faults(command.op, opened, where)
        elif command.op in ENDS.values():
            opened.append(command.op)
            if opened.count(command.op) > MAX_LOOPS:
                yield Fault(NESTING[command.op], where, f"{command.op} {opened.count(command.op)} deep")
        if command.op == "HALT" and (opened or index != len(section.code) - 1):
            yield Fault("S4", where, f"HALT before the end, inside {', '.join(opened) or 'nothing'}")
        if command.op in DECIDED and "PRED" in opened:
            yield Fault("P2", where, "inside a PRED")
        yield from _command_faults(program, section, command, names, where)
    for start in dict.fromkeys(opened):
        yield Fault(NESTING[start], core_name(section), f"{opened.count(start)} {start} without an end")
    if not section.code or section.code[-1].op != "HALT":
        yield Fault("S4", core_name(section), "no HALT at the end")


ENDS = {"ENDL": "LOOP", "ENDP": "PRED"}
NESTING = {"LOOP": "S3", "PRED": "P1"}
DECIDED = ("SIG", "AWAIT", "BAR", "WLOAD", "WVERIFY", "CAL", "LUTLD")  # must not depend on data


def _end_faults(op: str, opened: list[str], where: str) -> Iterator[Fault]:
    """An end that matches no start; loops and blocks must not cross."""
    if opened and opened[-1] == ENDS[op]:
        opened.pop()
        return
    crossed = ENDS[op] in opened
    yield Fault("P1" if op == "ENDP" or crossed else "S3", where, f"{op} in {opened[-1]}" if opened else f"only {op}")
    if crossed:
        opened.remove(ENDS[op])


def _command_faults(
    program: Program, section: Section, command: Command, names: dict[str, int], where: str
) -> Iterator[Fault]:
    try:
        encode_command(command, names)
    except ProgramError as error:
        yield Fault("S5" if error.got.startswith("'") else "S2", where, error.got)
        return
    row = instruction(command.op)
    assert row is not None, "encode_command knows it"
    tables = {
        "descriptor": section.descriptors,
        "register": section.descriptors,
        "binding": section.bindings,
        "vector": section.vectors,
        "host": section.hosts,
    }
    for operand, value in zip(row.operands, command.args, strict=True):
        if operand.kind in tables and int(value) >= len(tables[operand.kind]):
            yield Fault("S2", where, f"{operand.kind} {value} of {len(tables[operand.kind])}")
        if operand.kind in ("count", "size") and value == 0 and command.op != "SETD":
            yield Fault("S3" if operand.kind == "size" else "S2", where, f"{operand.name} 0")
    yield from _float_faults(program, section, command, where)
    needed = {"MMA": "mma", "WLOAD": "wload", "WVERIFY": "wload", "GEMV": "gemv", "WMODE": "dual_mode",
              "AMM": "wload"}.get(command.op)  # fmt: skip
    if needed and not _can(program.chip, needed):
        yield Fault("S6", where, f"chip {program.chip.get('name', '')} without capability {needed}")


RARE = ("dual_mode",)  # capabilities that a chip has only if its description says so
FLOAT_OPS = ("V1", "V2", "SEL", "RED", "CVT", "DQ", "Q", "QDYN")


def _float_faults(program: Program, section: Section, command: Command, where: str) -> Iterator[Fault]:
    """Commands on numbers without quantization, on a chip that has no unit for them."""
    if command.op in FLOAT_OPS and not _can(program.chip, "floats"):
        yield Fault("S6", where, f"chip {program.chip.get('name', '')} without capability floats")


def _can(chip: Mapping[str, Any], capability: str) -> bool:
    """Whether a chip has a capability; one whose description does not say is taken to."""
    capabilities = cast(Mapping[str, Any], chip.get("capabilities", {}))
    return bool(capabilities.get(capability, capability not in RARE))
