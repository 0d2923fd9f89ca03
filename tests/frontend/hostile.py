"""Broken and hostile ONNX files, each written by a function: what the commands must answer with one message.

`CASES[name](folder)` writes the file and returns its path.  Cases in SOUND hold odd networks that mean something and
may run; those in LARGE take long to write.
"""

from __future__ import annotations

from tests.frontend import hostile_data, hostile_graphs, hostile_large
from tests.frontend.hostile_base import CASES, SOUND

__all__ = ["CASES", "LARGE", "PARTS", "SOUND"]
PARTS = (hostile_graphs, hostile_data, hostile_large)  # which enter their cases when imported
LARGE = {
    "cycle_of_many",
    "hundred_thousand_inputs",
    "hundred_thousand_outputs",
    "hundred_thousand_tensors",
    "doubling_constants",
    "fifty_thousand_nodes",
    "million_nodes",
    "million_unknown_nodes",
    "million_vendor_nodes",
    "million_dead_nodes",
    "million_readers",
    "backwards",
}  # which take a second or more to write or to refuse
