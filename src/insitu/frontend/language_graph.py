"""A language model as a Graph: all tokens of a text at once, or one token with its keys and values as state.

Both forms have the same names for the same values, so one QuantPlan and one set of weights serve both; what one token
computes from its cache equals its row of the whole text, integer by integer.

    text form:   ids [1, tokens] -> logits [1, tokens, vocab]  (an encoder: hidden [1, tokens, width])
    step form:   ids [1, 1], position [1] -> logits [1, 1, vocab];  states L.keys, L.values [1, kv heads, context, size]
    paged steps: ids [1, lanes], position [lanes], slot [lanes], pages [lanes * pages of a lane] -> logits
                 [1, lanes, vocab];  states L.keys, L.values [slots, kv heads, size]: one pool for all lanes

A lane is one sequence.  Its new entry goes to `slot`, its cache is what lies in its `pages`, page by page; the pool's
page 0 is nobody's: lanes without a sequence write there, and pages that a sequence has not reached yet point to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from insitu.frontend.language import Architecture, Array, LanguageModel, rotations
from insitu.graph.graph import Attr, Graph, State
from insitu.graph.rewrite import Builder
from insitu.graph.types import TensorType

CACHE_BITS = 8
HALF = 16  # bits of caches that hold fp16 numbers
MASK = -128.0  # what a softmax does not see beside others
TABLES = ("rope_cos", "rope_sin", "local_cos", "local_sin", "mask", "local_mask", "position_rows")


def text_graph(model: LanguageModel, tokens: int, *, cache_bits: int = CACHE_BITS) -> Graph:
    """The graph of whole texts of so many tokens; keys and values will have `cache_bits`."""
    return _Writer(model, tokens, tokens, False, cache_bits).graph()


@dataclass(frozen=True)
class Paging:
    """A pool of `count` pages, each of `tokens` tokens, page 0 nobody's, for `lanes` sequences at once."""

    tokens: int
    count: int
    lanes: int = 1

    def of_lane(self, context: int) -> int:
        """Pages that one sequence of up to `context` tokens has."""
        return -(-context // self.tokens)

    @property
    def slots(self) -> int:
        """Tokens that the pool has room for, page 0 included."""
        return self.tokens * self.count


def step_graph(
    model: LanguageModel, context: int, *, cache_bits: int = CACHE_BITS, paging: Paging | None = None
) -> Graph:
    """The graph of one token after at most context - 1 others; of one of each lane, with caches in a pool of pages."""
    if paging is None:
        return _Writer(model, 1, context, True, cache_bits).graph()
    room = paging.of_lane(context) * paging.tokens
    graph = _Writer(model, paging.lanes, room, True, cache_bits, paging).graph()
    return replace(graph, meta={**graph.meta, "context": context})


def table_values(model: LanguageModel) -> dict[str, str]:
    """Rows that the step form picks by position, and the constant of the text form that holds them all."""
    return {f"{name}_row": name for name in TABLES}


@dataclass
class _Writer:
    """The graph while it is written; `context` counts the keys that a query may see."""

    model: LanguageModel
    tokens: int
    context: int
    step: bool
    cache_bits: int = CACHE_BITS
    paging: Paging | None = None

    def __post_init__(self) -> None:
        types = {"ids": TensorType((1, self.tokens), "i64")}
        if self.step:
            types["position"] = TensorType((self.tokens,), "i64")
        if self.paging:
            types["slot"] = TensorType((self.tokens,), "i64")
            types["pages"] = TensorType((self.tokens * self.paging.of_lane(self.context),), "i64")
        self.b = Builder(types, {})
        self.states: list[State] = []
        self.rows: dict[str, str] = {}

    @property
    def arch(self) -> Architecture:
        return self.model.arch

    def graph(self) -> Graph:
        """The whole network."""
        x = self.embedded()
        for layer in range(self.arch.layers):
            x = self.block(x, layer)
        output = self.ended(x)
        state_types = {s.input: self.b.types[s.input] for s in self.states}
        inputs = ("ids", "position", "slot", "pages")[: 4 if self.paging else 2 if self.step else 1]
        used = {v for n in self.b.nodes for v in n.inputs}
        inputs = tuple(i for i in inputs if i in used or i == "ids")
        meta: dict[str, Attr] = {"parameters": self.model.parameters, "language": self.arch.family}
        if self.paging:
            meta |= {"page_tokens": self.paging.tokens, "pool_pages": self.paging.count, "lanes": self.tokens}
        empty = Graph(
            self.model.name, "captured", inputs, (output,), (), {**self.b.types, **state_types}, self.b.constants,
            tuple(self.states), meta,
        )  # fmt: skip
        return self.b.finish(empty)

    # small verbs

    def weight(self, name: str) -> str:
        """A weight as a constant of its own name."""
        if name not in self.b.constants:
            self.b.constant(name, np.ascontiguousarray(self.model.weights[name], np.float32))
        return name

    def table(self, name: str, array: Array) -> str:
        if name not in self.b.constants:
            self.b.constant(name, np.ascontiguousarray(array, np.float32))
        return name

    def op(self, op: str, name: str, inputs: Sequence[str], **attrs: Attr) -> str:
        return self.b.emit(op, inputs, name=name, attrs=attrs)

    def linear(self, x: str, name: str, **attrs: Attr) -> str:
        """A product with constant weights, with its bias."""
        matrix = self.model.weights[f"{name}.w"]
        bias = self.model.weights.get(f"{name}.b")
        table = self.table(f"{name}.b", np.zeros(matrix.shape[1]) if bias is None else bias)
        return self.op("MatMul", name, (x, self.weight(f"{name}.w"), table), **attrs)

    def norm(self, x: str, name: str, *, center: bool | None = None) -> str:
        """A norm over the last axis with its scale and shift; none where the model has no such norm."""
        if f"{name}.w" not in self.model.weights:
            return x
        centered = self.arch.norm == "layer" if center is None else center
        rank = len(self.b.types[x].shape)
        y = self.op("Norm", name, (x,), axes=(rank - 1,), epsilon=self.arch.epsilon, center=int(centered))
        y = self.op("Mul", f"{name}.scaled", (y, self.weight(f"{name}.w")))
        if f"{name}.b" in self.model.weights:
            y = self.op("Add", f"{name}.shifted", (y, self.weight(f"{name}.b")))
        return y

    def shaped(self, x: str, name: str, *shape: int) -> str:
        return self.op("Reshape", name, (x,), shape=shape)

    def turned(self, x: str, name: str, *perm: int) -> str:
        return self.op("Transpose", name, (x,), perm=perm)

    def by_position(self, name: str, rows: Array, shape: Sequence[int]) -> str:
        """Rows of a table [context, n] that belong to the tokens, as `shape`; picked by position in the step form."""
        if not self.step:
            return self.table(name, rows.reshape(shape))
        if name not in self.rows:
            picked = self.op("Gather", f"{name}_row", (self.table(name, rows), "position"), axis=0)
            self.rows[name] = self.shaped(picked, f"{name}_shaped", *shape)
        return self.rows[name]

    # parts

    def embedded(self) -> str:
        arch, weights = self.arch, self.model.weights
        table = weights["embed"] * np.float32(arch.embed_scale)
        x = self.op("Gather", "embedded", (self.table("embed", table), "ids"), axis=0)
        if arch.learned_positions:
            rows = weights["positions"][: self.context]
            if "types" in weights:
                rows = rows + weights["types"]
            x = self.op("Add", "placed", (x, self.by_position("position_rows", rows, (1, self.tokens, arch.width))))
        return self.norm(x, "embed_norm")

    def block(self, x: str, layer: int) -> str:
        """One layer."""
        arch, at = self.arch, f"{layer}."
        if arch.post_norm:
            x = self.norm(self.summed(x, self.attention(x, layer), f"{at}attended"), f"{at}attn_norm")
            return self.norm(self.summed(x, self.feed(x, layer), f"{at}fed"), f"{at}mlp_norm")
        y = self.norm(x, f"{at}attn_norm")
        attended = self.attention(y, layer)
        if arch.parallel:
            inner = self.norm(x, f"{at}mlp_norm") if f"{at}mlp_norm.w" in self.model.weights else y
            return self.summed(self.summed(x, attended, f"{at}attended"), self.feed(inner, layer), f"{at}fed")
        attended = self.norm(attended, f"{at}post_attn_norm") if arch.sandwich else attended
        x = self.summed(x, attended, f"{at}attended")
        fed = self.feed(self.norm(x, f"{at}mlp_norm"), layer)
        fed = self.norm(fed, f"{at}post_mlp_norm") if arch.sandwich else fed
        return self.summed(x, fed, f"{at}fed")

    def summed(self, x: str, y: str, name: str) -> str:
        return self.op("Add", name, (x, y))

    def attention(self, x: str, layer: int) -> str:
        arch, at = self.arch, f"{layer}."
        n, t = (self.tokens, 1) if self.paging else (1, self.tokens)  # sequences, and tokens of each
        kv, groups, size = arch.kv_heads, arch.groups, arch.head_size
        q = self.rotated(self.heads(x, f"{at}q", arch.heads), layer, "q")
        k = self.rotated(self.heads(x, f"{at}k", kv), layer, "k")
        if f"{at}k_center" in self.model.weights:  # what all keys have in common moves no share
            center = self.table(f"{at}k_center", -self.model.weights[f"{at}k_center"].reshape(1, 1, kv, size))
            k = self.op("Add", f"{at}k_centered", (k, center))
        v = self.heads(x, f"{at}v", kv)
        self.narrowed(k)
        self.narrowed(v)
        q = self.turned(self.shaped(q, f"{at}q_grouped", n, t, kv, groups, size), f"{at}q_turned", 0, 2, 3, 1, 4)
        keys, values = self.cached(k, f"{at}keys"), self.cached(v, f"{at}values")
        keys = self.turned(self.shaped(keys, f"{at}keys_shaped", n, kv, 1, self.context, size), f"{at}keys_turned",
                           0, 1, 2, 4, 3)  # fmt: skip
        scores = self.op("MatMul", f"{at}scores", (q, keys))
        scores = self.capped(scores, f"{at}capped", arch.caps[0])
        if arch.causal:
            scores = self.op("Add", f"{at}masked", (scores, self.mask(arch.window(layer))))
        shares = self.op("Softmax", f"{at}shares", (scores,), axis=4)
        values = self.shaped(values, f"{at}values_shaped", n, kv, 1, self.context, size)
        y = self.turned(self.op("MatMul", f"{at}mixed", (shares, values)), f"{at}mixed_turned", 0, 3, 1, 2, 4)
        return self.linear(self.shaped(y, f"{at}mixed_flat", 1, n * t, arch.heads * size), f"{at}o")

    def narrowed(self, x: str) -> None:
        """Keys or values written in as few bits as the cache has: by what computes them, for moves keep codes."""
        for at in reversed(range(len(self.b.nodes) if self.cache_bits != CACHE_BITS else 0)):
            node = self.b.nodes[at]
            if node.output == x and node.op in ("Reshape", "Transpose"):
                x = node.inputs[0]
            elif node.output == x:
                self.b.nodes[at] = replace(node, attrs={**node.attrs, "bits": self.cache_bits})
                return

    def heads(self, x: str, name: str, count: int) -> str:
        """A projection cut into heads, with their norm: [1, tokens, heads, size]."""
        y = self.shaped(self.linear(x, name), f"{name}_heads", 1, self.tokens, count, self.arch.head_size)
        return self.norm(y, f"{name}_norm", center=False)

    def rotated(self, x: str, layer: int, part: str) -> str:
        """Rotary positions: x * cos + swapped * sin on the first `rotary` elements of each head."""
        arch, name = self.arch, f"{layer}.{part}"
        if not arch.rotary:
            return x
        local = bool(arch.local_theta) and arch.window(layer) > 0
        kind = "local" if local else "rope"
        shape, half = (1, self.tokens, 1, arch.rotary), arch.rotary // 2
        cos, sin = rotations(arch, np.arange(self.context), local=local)
        whole = arch.rotary == arch.head_size
        turning = x if whole else self.cut(x, f"{name}_turning", 0, arch.rotary)
        low, high = (self.cut(turning, f"{name}_{n}", a, a + half) for n, a in (("low", 0), ("high", half)))
        swapped = self.op("Concat", f"{name}_swapped", (high, low), axis=3)
        parts = [
            self.op("Mul", f"{name}_{n}", (v, self.by_position(f"{kind}_{n}", rows, shape)))
            for n, v, rows in (("cos", turning, cos), ("sin", swapped, sin))
        ]
        y = self.op("Add", f"{name}_rotated", parts)
        if whole:
            return y
        return self.op(
            "Concat", f"{name}_joined", (y, self.cut(x, f"{name}_still", arch.rotary, arch.head_size)), axis=3
        )

    def cut(self, x: str, name: str, start: int, end: int) -> str:
        return self.op("Slice", name, (x,), axes=(3,), starts=(start,), ends=(end,), steps=(1,))

    def cached(self, x: str, name: str) -> str:
        """[sequences, kv heads, context, size]: the text's own, or the cache with this token's entry."""
        if self.paging:
            return self.pooled(x, name, self.paging)
        arch = self.arch
        new = self.turned(x, f"{name}_new", 0, 2, 1, 3)
        if not self.step:
            return new
        self.b.types[f"{name}_held"] = TensorType((1, arch.kv_heads, self.context, arch.head_size), "f32")
        value = self.op("Scatter", name, (f"{name}_held", "position", new), axis=2)
        self.states.append(State(f"{name}_held", value))
        return value

    def pooled(self, x: str, name: str, paging: Paging) -> str:
        """[lanes, kv heads, context, size]: each lane's pages out of the pool, its new entry among them."""
        arch, lanes, each = self.arch, self.tokens, paging.of_lane(self.context)
        entry = arch.kv_heads * arch.head_size
        new = self.shaped(x, f"{name}_new", lanes, entry)
        self.b.types[f"{name}_held"] = TensorType((paging.slots, entry), "f32")
        pool = self.op("Scatter", f"{name}_pool", (f"{name}_held", "slot", new), axis=0)
        self.states.append(State(f"{name}_held", pool))
        cut = self.shaped(pool, f"{name}_paged", paging.count, paging.tokens * entry)
        mine = self.op("Gather", f"{name}_mine", (cut, "pages"), axis=0)
        rows = self.shaped(mine, f"{name}_rows", lanes, each * paging.tokens, arch.kv_heads, arch.head_size)
        return self.turned(rows, name, 0, 2, 1, 3)

    def mask(self, window: int) -> str:
        """0 where a token may look, MASK elsewhere: at itself and before, at most `window` tokens back."""
        at = np.arange(self.context)
        seen = at[None] <= at[:, None]
        if window:
            seen &= at[None] > at[:, None] - window
        rows = np.where(seen, 0.0, MASK).astype(np.float32)
        n, t = (self.tokens, 1) if self.paging else (1, self.tokens)
        return self.by_position("local_mask" if window else "mask", rows, (n, 1, 1, t, self.context))

    def capped(self, x: str, name: str, cap: float) -> str:
        return self.op("Curve", name, (x,), expr=f"mul {cap!r} tanh mul {1 / cap!r} x") if cap else x

    def feed(self, x: str, layer: int) -> str:
        if self.arch.experts:
            return self.mixture(x, layer)
        return self.expert(x, f"{layer}.")

    def expert(self, x: str, at: str) -> str:
        """One feed-forward network."""
        if not self.arch.gated:
            y = self.op("Curve", f"{at}active", (self.linear(x, f"{at}up"),), expr=self.arch.activation)
            return self.linear(y, f"{at}down")
        gate = self.op("Curve", f"{at}active", (self.linear(x, f"{at}gate"),), expr=self.arch.activation)
        return self.linear(self.op("Mul", f"{at}gated", (gate, self.linear(x, f"{at}up"))), f"{at}down")

    def mixture(self, x: str, layer: int) -> str:
        """The sum of experts times their gates; a gate is 0 where more than `active` - 1 others are larger.

        Every expert is computed: which ones a token needs is known at run time only.
        """
        arch, at, t, n = self.arch, f"{layer}.", self.tokens, self.arch.experts
        logits = self.linear(x, f"{at}router")
        column = self.shaped(logits, f"{at}rivals", 1, t, n, 1)
        row = self.shaped(logits, f"{at}rival_row", 1, t, 1, n)
        ahead = self.op("Curve", f"{at}ahead", (self.op("Sub", f"{at}margins", (row, column)),), expr="greater x 0.0")
        rank = self.op("ReduceSum", f"{at}rank", (ahead,), axes=(3,), keepdims=0)
        barred = self.op("Curve", f"{at}barred", (rank,), expr=f"mul {MASK!r} greater x {arch.active - 0.5!r}")
        gates = self.op("Softmax", f"{at}gates", (self.op("Add", f"{at}chosen", (logits, barred)),), axis=2)
        total = ""
        for expert in range(n):
            gate = self.op("Slice", f"{at}gate_{expert}", (gates,), axes=(2,), starts=(expert,), ends=(expert + 1,),
                           steps=(1,))  # fmt: skip
            part = self.op("Mul", f"{at}{expert}.weighed", (self.expert(x, f"{at}{expert}."), gate))
            total = self.summed(total, part, f"{at}{expert}.sum") if total else part
        return total

    def ended(self, x: str) -> str:
        """The last norm and the head; an encoder gives its hidden states."""
        x = self.norm(x, "norm") if self.arch.final_norm else x
        if "head.w" not in self.model.weights:
            return x
        y = self.linear(x, "head", wide=1)
        if self.arch.caps[1]:
            return self.capped(y, "logits", self.arch.caps[1])
        return self.shaped(y, "logits", 1, self.tokens, self.arch.vocab)
