"""Blocks of work handed from thread to thread inside kernels, where nobody needs Python's lock.

A helper that is awake looks at a board, words in memory that all threads of a process share.  A caller that opens a job
on it needs some hundred nanoseconds to have company, where a hand-over through Python takes a tenth of a millisecond.
"""

# pyright: basic, reportMissingImports=false
# numba infers the types of its kernels from the arrays they are called with.

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LINE = 8  # words of a cache line: each word of a board has one of its own
TAKEN, OPEN, NEXT, INSIDE, MOST, AWAKE, TICKET, BODY, GIVEN = range(0, 9 * LINE, LINE)
BOARD = types.Array(types.int64, 1, "C")
ORDER = "seq_cst"


def new_board():
    """A board without a job; its word MOST is how many helpers may be at work."""
    return np.zeros(9 * LINE, np.int64)


def _word(context, builder, signature, args):
    data = cgutils.create_struct_proxy(signature.args[0])(context, builder, args[0]).data
    return builder.gep(data, [args[1]])


def _load(typing_context, board, word):
    """A word, read from memory each time."""

    def generate(context, builder, signature, args):
        return builder.load_atomic(_word(context, builder, signature, args), ORDER, 8)

    return types.int64(BOARD, types.int64), generate


def _add(typing_context, board, word, more):
    """Add to a word; what it was before."""

    def generate(context, builder, signature, args):
        return builder.atomic_rmw("add", _word(context, builder, signature, args), args[2], ORDER)

    return types.int64(BOARD, types.int64, types.int64), generate


def _swap(typing_context, board, word, value):
    """Put a value into a word; what it was before."""

    def generate(context, builder, signature, args):
        return builder.atomic_rmw("xchg", _word(context, builder, signature, args), args[2], ORDER)

    return types.int64(BOARD, types.int64, types.int64), generate


load: Any = intrinsic(_load)
add: Any = intrinsic(_add)
swap: Any = intrinsic(_swap)


def _call_body(typing_context, board):
    """Call the function that stands on the board with what it is given."""

    def generate(context, builder, signature, args):
        function = ir.FunctionType(ir.VoidType(), [ir.IntType(64)])
        body, given = (
            builder.load(_word(context, builder, signature, [args[0], ir.IntType(64)(word)])) for word in (BODY, GIVEN)
        )
        builder.call(builder.inttoptr(body, function.as_pointer()), [given])
        return context.get_dummy_value()

    return types.void(BOARD), generate


def _put_body(typing_context, board, work, given, count):
    """Put on the board: work(given, i) for every i below count that nobody has taken yet."""
    arguments = types.Tuple((board, given, count))

    def generate(context, builder, signature, args):
        every = _every(signature.args[1].dispatcher)
        inner = types.void(*arguments)
        compiled = context.compile_subroutine(builder, every, inner)
        whole = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [whole])
        body = ir.Function(builder.module, kind, name=context.mangler("together", [arguments]))
        body.linkage = "internal"
        place = cgutils.alloca_once(builder, context.get_value_type(arguments))
        builder.store(cgutils.make_anonymous_struct(builder, [args[0], args[2], args[3]]), place)
        within = ir.IRBuilder(body.append_basic_block())
        held = within.load(within.inttoptr(body.args[0], place.type))
        parts = [within.extract_value(held, i) for i in range(3)]
        context.call_internal_no_propagate(within, compiled.fndesc, inner, parts)
        within.ret_void()
        for word, pointer in ((BODY, body), (GIVEN, place)):
            where = _word(context, builder, signature, [args[0], whole(word)])
            builder.store(builder.ptrtoint(pointer, whole), where)
        return context.get_dummy_value()

    return types.void(board, work, given, count), generate


def _every(work):
    """The loop of one thread; what `work` raises is lost, so it must not."""

    def every(board, given, count):
        index = add(board, NEXT, 1)
        while index < count:
            work(given, index)
            index = add(board, NEXT, 1)

    return every


call_body: Any = intrinsic(_call_body)
put_body: Any = intrinsic(_put_body)


@nb.njit(cache=True, inline="always")
def together(board, work, given, count):
    """work(given, i) for every i < count, along with the helpers that look at the board.

    `work` is a kernel and raises nothing.  Where another caller has the board the caller works alone.
    """
    if swap(board, TAKEN, 1) != 0:
        for index in range(count):
            work(given, index)
        return
    put_body(board, work, given, count)
    swap(board, NEXT, 0)
    swap(board, OPEN, add(board, TICKET, 1) + 1)
    call_body(board)
    swap(board, OPEN, 0)
    while load(board, INSIDE) > 0:  # whoever saw the job open
        pass
    swap(board, TAKEN, 0)


@nb.njit(cache=True, nogil=True)
def serve(board, word, seen, looks):
    """Look at word[0] until it is not `seen`, at most `looks` times, and help with every job on the board meanwhile."""
    done, left = 0, looks
    add(board, AWAKE, 1)
    while left > 0 and load(word, 0) == seen:
        left -= 1
        ticket = load(board, OPEN)
        if ticket > done:
            others = add(board, INSIDE, 1)
            if load(board, OPEN) == ticket:  # else the caller may be gone, and what it gave
                if others < load(board, MOST):
                    call_body(board)
                done, left = ticket, looks
            add(board, INSIDE, -1)
    add(board, AWAKE, -1)


@nb.njit(cache=True, nogil=True)
def wait_for_change(word, seen, looks):
    """Look at word[0] until it is not `seen`, at most `looks` times."""
    for _ in range(looks):
        if load(word, 0) != seen:
            return
