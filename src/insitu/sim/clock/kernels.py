"""numba kernels of the timing simulator: cores in order, units held one command at a time, one memory port a chip.

The records are those of insitu.sim.clock.layout.  `run` can stop when spans are full and be called again.
"""

# pyright: basic, reportMissingImports=false
# numba infers the types of its kernels from the arrays they are called with.

from __future__ import annotations

import numba as nb

# What a core does at its next event; WAIT, MEET and DONE have no event of their own.
FETCH, READ, WRITE, POST, TAKE, ARRIVE, WAIT, MEET, DONE = range(9)
# Commands by what the sequencer does with them.
WORK, ENDL, PASS, LOOP, SIG, AWAIT, BAR, HALT, LOAD = range(9)


@nb.njit(cache=True)
def run(
    cores,
    plans,
    stages,
    holds,
    code,
    loops,
    free,
    tokens,
    heap,
    infos,
    spans,
    tally,
    state,
    trips,
    seen,
    seen_trips,
    slots,
    slot_state,
    slot_trips,
    slot_cores,
    slot_tally,
    trace,
    skip,
):
    """Run a machine until no core has an event; False where spans must grow first."""
    info = infos[0]
    room = spans.shape[0] - info.most_holds
    while info.events > 0:
        number = _pop(heap, info)
        core = cores[number]
        while True:  # on with the same core while nothing else comes first
            if trace and info.spans > room:
                _push(heap, info, core.at, number)
                return False
            if core.position >= core.count:
                core.phase = DONE
                break
            phase, plan = core.phase, plans[code[core.base + core.position]]
            if phase == FETCH:
                _fetch(core, number, plan, stages, holds, loops, free, spans, tally, info, trace)
                if skip and plan.kind == ENDL and info.again > 1:
                    _skip_trips(
                        cores,
                        core,
                        number,
                        loops,
                        free,
                        tokens,
                        heap,
                        info,
                        tally,
                        state,
                        trips,
                        seen,
                        seen_trips,
                        slots,
                        slot_state,
                        slot_trips,
                        slot_cores,
                        slot_tally,
                    )
            elif phase == READ:
                start = max(core.at, free[core.port])
                end = start + plan.read_total
                _hold(core, number, core.port, start, end, free, spans, info, trace)
                _compute(core, number, plan, start, end, plan.read_edge, stages, holds, free, spans, tally, info, trace)
            elif phase == WRITE:
                start = max(core.at, free[core.port])
                core.at = start + plan.write_total
                _hold(core, number, core.port, start, core.at, free, spans, info, trace)
                _finish(core, tally, info)
            elif phase == POST:
                _post(cores, core, plan, plans, code, tokens, heap, tally, info)
            elif phase == TAKE:
                if _take_token(plan, tokens):
                    _finish(core, tally, info)
                else:
                    core.phase = WAIT
            else:
                _arrive(cores, core, number, heap, tally, info)
            if core.phase > ARRIVE:
                break
            if info.events > 0:
                first = heap[0]
                if first.time < core.at or (first.time == core.at and first.core < number):
                    _push(heap, info, core.at, number)
                    break
    return True


@nb.njit(cache=True)
def _fetch(core, number, plan, stages, holds, loops, free, spans, tally, info, trace):
    kind = plan.kind
    core.started = core.at
    if kind == ENDL:
        _end_loop(core, number, loops, tally, info)
        return
    if plan.issue > 0:
        _hold(core, number, core.issue, core.at, core.at + plan.issue, free, spans, info, trace)
        core.at += plan.issue
    if kind == WORK:
        if plan.read_total > 0:
            core.phase = READ
        else:
            _compute(core, number, plan, core.at, core.at, 0, stages, holds, free, spans, tally, info, trace)
    elif kind == SIG:
        core.phase = POST
    elif kind == AWAIT:
        core.phase = TAKE
    elif kind == BAR:
        core.phase = ARRIVE
    else:
        if kind == LOOP:
            loop = loops[number, core.depth]
            loop.start, loop.left = core.position + 1, plan.arg
            core.depth += 1
        elif kind == LOAD:
            stage = stages[plan.stage]
            _occupy(core, number, stage, core.at, core.at, holds, free, spans, info, trace)
        _finish(core, tally, info)
        if kind == HALT:
            core.phase = DONE


@nb.njit(cache=True)
def _end_loop(core, number, loops, tally, info):
    """Back to the start of the loop, or on; info.again is how many trips are left."""
    loop = loops[number, core.depth - 1]
    loop.left -= 1
    info.again = loop.left
    if loop.left == 0:
        core.depth -= 1
    start = loop.start
    _finish(core, tally, info)
    if info.again > 0:
        core.position = start


@nb.njit(cache=True)
def _compute(core, number, plan, start, end, step, stages, holds, free, spans, tally, info, trace):
    """All after the operands: `start`, `end` and `step` (one vector's time) are those of the stage before."""
    for i in range(plan.stage, plan.stage_end):
        stage = stages[i]
        start, end = _occupy(core, number, stage, start + step, end, holds, free, spans, info, trace)
        step = stage.step
    core.at = end
    if plan.write_total == 0:
        _finish(core, tally, info)
        return
    # So late that the burst then never starves: the port is not held while results are being made.
    core.at = max(start + step, end + plan.write_edge - plan.write_total)
    core.phase = WRITE


@nb.njit(cache=True)
def _occupy(core, number, stage, earliest, before, holds, free, spans, info, trace):
    """Hold a stage's units; `before` is when the stage before ends."""
    start = earliest
    for i in range(stage.hold, stage.hold_end):
        start = max(start, free[holds[i].unit])
    end = max(start + stage.count * stage.step, before + stage.step)
    for i in range(stage.hold, stage.hold_end):
        _hold(core, number, holds[i].unit, start, end - stage.step + holds[i].work, free, spans, info, trace)
    return start, end


@nb.njit(cache=True)
def _post(cores, core, plan, plans, code, tokens, heap, tally, info):
    tokens[plan.arg] += 1
    for i in range(cores.shape[0]):
        other = cores[i]
        if other.phase == WAIT:
            wanted = plans[code[other.base + other.position]]
            if wanted.arg == plan.arg and _take_token(wanted, tokens):
                other.at = core.at
                _finish(other, tally, info)
                _push(heap, info, core.at, i)
    _finish(core, tally, info)


@nb.njit(cache=True)
def _take_token(plan, tokens):
    if tokens[plan.arg] < plan.wanted:
        return False
    tokens[plan.arg] -= plan.wanted
    return True


@nb.njit(cache=True)
def _arrive(cores, core, number, heap, tally, info):
    core.phase = MEET
    for i in range(cores.shape[0]):
        if cores[i].phase != MEET:
            return
    for i in range(cores.shape[0]):
        other = cores[i]
        other.at = core.at
        _finish(other, tally, info)
        if i != number:
            _push(heap, info, core.at, i)


@nb.njit(cache=True)
def _finish(core, tally, info):
    """The command at the core's position ends now; the next one follows."""
    own = tally[core.base + core.position]
    info.stepped += 1
    own.executed += 1
    own.elapsed += core.at - core.started
    if own.first < 0:
        own.first = core.started
    own.last = core.at
    core.position += 1
    core.phase = FETCH


@nb.njit(cache=True)
def _hold(core, number, unit, start, end, free, spans, info, trace):
    free[unit] = end
    if trace and end > start:
        span = spans[info.spans]
        span.resource, span.section, span.command, span.start, span.end = unit, number, core.position, start, end
        info.spans += 1


# the queue: a binary heap of (time, core), at most one event a core


@nb.njit(cache=True)
def _push(heap, info, time, core):
    at = info.events
    info.events += 1
    while at > 0:
        parent = heap[(at - 1) >> 1]
        if parent.time < time or (parent.time == time and parent.core <= core):
            break
        heap[at].time, heap[at].core = parent.time, parent.core
        at = (at - 1) >> 1
    heap[at].time, heap[at].core = time, core


@nb.njit(cache=True)
def _pop(heap, info):
    found = heap[0].core
    info.events -= 1
    size = info.events
    time, core = heap[size].time, heap[size].core
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and _before(heap[child + 1], heap[child]):
            child += 1
        if time < heap[child].time or (time == heap[child].time and core <= heap[child].core):
            break
        heap[at].time, heap[at].core = heap[child].time, heap[child].core
        at = child
    heap[at].time, heap[at].core = time, core
    return found


@nb.njit(cache=True)
def _before(a, b):
    return a.time < b.time or (a.time == b.time and a.core < b.core)


# loop trips that repeat


@nb.njit(cache=True)
def _skip_trips(
    cores,
    core,
    number,
    loops,
    free,
    tokens,
    heap,
    info,
    tally,
    state,
    trips,
    seen,
    seen_trips,
    slots,
    slot_state,
    slot_trips,
    slot_cores,
    slot_tally,
):
    """Where the whole machine is in a state it was in before, jump over the trips that would be the same.

    The first return of a state takes a snapshot, the second one knows what a period does, and jumps.  What is looked up
    is a hash; what is jumped on is compared whole.
    """
    _describe(cores, core, number, loops, free, tokens, info, state, trips)
    slot = -1
    for i in range(slots.shape[0]):
        if slots[i].used and slots[i].core == number and slots[i].position == core.position:
            slot = i
    same = slot >= 0 and _equal(slot_state[slot], state)
    if same:
        periods = _periods(slot_trips[slot], trips, info.depth)
        period = core.at - slots[slot].time
        if periods > 0 and _steady(cores, tally, slot_cores[slot], slot_tally[slot], period):
            _jump(
                cores,
                loops,
                free,
                heap,
                info,
                tally,
                slot_cores[slot],
                slot_tally[slot],
                slot_trips[slot],
                periods,
                period,
            )
            slots[slot].used = 0
            return
    key = _hash(state)
    at = _find(seen, key)
    known = seen[at].used and seen[at].key == key
    fresh = slot < 0 or same or (known and slots[slot].time < seen[at].time)
    if known and fresh and _periods(seen_trips[at], trips, info.depth) > 1:
        if slot < 0:
            slot = info.next_slot
            info.next_slot = (slot + 1) % slots.shape[0]
        slots[slot].used, slots[slot].core, slots[slot].position, slots[slot].time = 1, number, core.position, core.at
        _copy(state, slot_state[slot])
        _copy(trips, slot_trips[slot])
        for i in range(cores.shape[0]):
            slot_cores[slot, i] = cores[i].started
        for i in range(tally.shape[0]):
            slot_tally[slot, i, 0], slot_tally[slot, i, 1] = tally[i].executed, tally[i].elapsed
    if not known:
        if 2 * info.seen >= seen.shape[0]:
            for i in range(seen.shape[0]):
                seen[i].used = 0
            info.seen = 0
            at = _find(seen, key)
        info.seen += 1
    seen[at].used, seen[at].key, seen[at].time = 1, key, core.at
    _copy(trips, seen_trips[at])


@nb.njit(cache=True)
def _describe(cores, core, number, loops, free, tokens, info, state, trips):
    """All that decides what happens next, times relative to now, into `state`; the trips left into `trips`."""
    depth, now, at = info.depth, core.at, 1
    state[0] = number
    for i in range(cores.shape[0]):
        c = cores[i]
        state[at], state[at + 1] = c.position, c.phase
        state[at + 2] = c.at - now if c.phase <= ARRIVE else 0
        at += 3
        for d in range(depth):
            inside = d < c.depth
            state[at] = loops[i, d].start if inside else -1
            trips[i * depth + d] = loops[i, d].left if inside else -1
            at += 1
    for unit in range(free.shape[0]):
        state[at] = max(free[unit] - now, 0)
        at += 1
    for token in range(tokens.shape[0]):
        state[at] = tokens[token]
        at += 1


@nb.njit(cache=True)
def _hash(state):
    key = nb.uint64(0xCBF29CE484222325)
    for i in range(state.shape[0]):
        key = (key ^ nb.uint64(state[i])) * nb.uint64(0x9E3779B97F4A7C15)
        key ^= key >> nb.uint64(29)
    return key


@nb.njit(cache=True)
def _find(seen, key):
    """Where a key is, or would be, in the open table."""
    mask = nb.uint64(seen.shape[0] - 1)
    at = key & mask
    while seen[at].used and seen[at].key != key:
        at = (at + nb.uint64(1)) & mask
    return nb.int64(at)


@nb.njit(cache=True)
def _copy(source, target):
    for i in range(source.shape[0]):
        target[i] = source[i]


@nb.njit(cache=True)
def _equal(a, b):
    for i in range(a.shape[0]):  # noqa: SIM110 (numba knows no generators)
        if a[i] != b[i]:
            return False
    return True


@nb.njit(cache=True)
def _periods(old, new, depth):
    """How often the step from `old` to `new` trips left can be repeated with every loop going on; 0 if never.

    Within one core a single level may differ: then loops inside it ran whole and those around it did not turn.
    """
    most = nb.int64(-1)
    for base in range(0, old.shape[0], depth):
        changes = 0
        for i in range(base, base + depth):
            done = old[i] - new[i]
            if done == 0:
                continue
            changes += 1
            if changes > 1 or done < 0 or new[i] < 0:
                return 0
            fits = (new[i] - 1) // done
            most = fits if most < 0 else min(most, fits)
    return max(most, 0)


@nb.njit(cache=True)
def _steady(cores, now, started, tally, period):
    """Each core either did nothing since, or began what it does now one period later than it did then."""
    for i in range(cores.shape[0]):
        moved = cores[i].started - started[i]
        if moved != period and (moved != 0 or _ran(now, tally, cores[i])):
            return False
    return True


@nb.njit(cache=True)
def _ran(now, tally, core):
    """Whether a core has ended a command since."""
    for k in range(core.base, core.base + core.count):  # noqa: SIM110 (numba knows no generators)
        if now[k].executed != tally[k, 0]:
            return True
    return False


@nb.njit(cache=True)
def _jump(cores, loops, free, heap, info, now, started, tally, before, periods, period):
    shift = periods * period
    for i in range(cores.shape[0]):
        c, ran = cores[i], False
        for k in range(c.base, c.base + c.count):
            times = now[k].executed - tally[k, 0]
            if times != 0:
                ran = True
                now[k].executed += periods * times
                now[k].elapsed += periods * (now[k].elapsed - tally[k, 1])
                now[k].last += shift
        if c.phase <= ARRIVE or ran:
            c.at += shift
        if c.started != started[i]:
            c.started += shift
        for d in range(c.depth):
            loops[i, d].left -= periods * (before[i * info.depth + d] - loops[i, d].left)
    for unit in range(free.shape[0]):
        free[unit] += shift
    for i in range(info.events):
        heap[i].time += shift
