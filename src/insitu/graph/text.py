"""Graphs as text that people read and diff, and that parses back to an equal Graph.

    graph kws level=quantized
      meta opset=17
      input x: i8[1, 490] q(bits=8, scale=0.5, zero_point=-3)
      const conv.bias: i64[2] = [3, -4]
      const conv.weight: i8[28, 1, 10, 4] = sha256:9c1e...
      h: i8[1, 28, 40, 7] = Conv(x, conv.weight, conv.bias) {group: 1, pads: [0, 0]} as conv1
      output h
    data sha256:9c1e... i8 1120
      <base64>
    end

Names of unusual characters stand as JSON strings, `f32[N, 3]` has a size bound at run time, `_` is an absent input, and
`as` names a node unless it is called like its output.  Large constants stand by hash; their bytes follow as `data`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.base.errors import ModelError, OutputError
from insitu.graph.graph import Attr, Graph, Node, Scalar
from insitu.graph.text_parse import NUMPY_TYPES, parse_graph
from insitu.graph.types import TensorType
from insitu.numeric.affine import QuantSpec

Array = npt.NDArray[Any]
INLINE = 16  # elements of a constant that is written in its line
WIDTH = 100  # characters of base64 in a line
MAX_BYTES = 1 << 31
PLAIN = re.compile(r"[A-Za-z0-9_./:;+\-#]+\Z")
WORDS = frozenset(("_", "as", "true", "false", "inf", "nan"))
