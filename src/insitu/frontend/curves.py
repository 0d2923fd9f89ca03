"""Functions of one number, as ONNX has them, as expressions (numeric/curves.py): a table for every code on a chip."""

from __future__ import annotations

from collections.abc import Callable

from insitu.frontend.call import Call

Lowering = Callable[[Call], None]


def _curve(rule: Callable[[Callable[[str, float], str]], str]) -> Lowering:
    """A node whose numbers are attributes, with ONNX's defaults."""

    def lower(call: Call) -> None:
        expression = rule(lambda name, default: repr(float(call.attrs.get(name, default))))
        call.write({"expr": expression}, op="Curve")

    return lower


def _gelu(call: Call) -> None:
    if call.attrs.get("approximate", "none") == "tanh":
        inner = "mul 0.7978845608028654 add x mul 0.044715 mul x mul x x"
        return call.write({"expr": f"mul mul 0.5 x add 1.0 tanh {inner}"}, op="Curve")
    return call.write({"expr": "mul mul 0.5 x add 1.0 erf mul x 0.7071067811865476"}, op="Curve")


def _plain(text: str) -> Lowering:
    return _curve(lambda number: text)


CURVES: dict[str, Lowering] = {
    "Sigmoid": _plain("sigmoid x"), "Tanh": _plain("tanh x"), "Softplus": _plain("softplus x"), "Erf": _plain("erf x"),
    "HardSwish": _plain("mul x max 0.0 min 1.0 add mul x 0.16666666666666666 0.5"), "Gelu": _gelu,
    "HardSigmoid": _curve(lambda n: f"max 0.0 min 1.0 add mul x {n('alpha', 0.2)} {n('beta', 0.5)}"),
    "LeakyRelu": _curve(lambda n: f"add max x 0.0 mul {n('alpha', 0.01)} min x 0.0"),
    "Elu": _curve(lambda n: f"add max x 0.0 mul {n('alpha', 1.0)} sub exp min x 0.0 1.0"),
}  # fmt: skip
