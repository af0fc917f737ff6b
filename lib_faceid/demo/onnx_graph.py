"""Small ONNX models, written node by node. Needs the package onnx, so it is imported only where a model is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper


class Graph:
    """Collects nodes; every method adds one and gives back the name of its result.

    Maps are (1, 1, height, width) float32 unless said otherwise.
    """

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []

    def add(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"n{len(self.nodes)}"
        settings = cast("dict[str, Any]", attributes)
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"{kind.lower()}_{name}", **settings))
        return name

    def constant(self, value: object, dtype: type = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def times(self, a: str, *others: str) -> str:
        for other in others:
            a = self.add("Mul", a, other)
        return a

    def scaled(self, a: str, factor: float, offset: float = 0.0) -> str:
        return self.add("Add", self.add("Mul", a, self.constant(factor)), self.constant(offset))

    def truth(self, condition: str) -> str:
        return self.add("Cast", condition, to=TensorProto.FLOAT)

    def at_least(self, a: str, limit: str | float) -> str:
        limit = limit if isinstance(limit, str) else self.constant(limit)
        return self.truth(self.add("GreaterOrEqual", a, limit))

    def negated(self, a: str) -> str:
        return self.scaled(a, -1.0, 1.0)

    def neighbour(self, a: str, dy: int, dx: int) -> str:
        """The value one cell further in that direction; 0 outside."""
        kernel = np.zeros((1, 1, 3, 3))
        kernel[0, 0, 1 + dy, 1 + dx] = 1
        return self.add("Conv", a, self.constant(kernel), pads=[1, 1, 1, 1])

    def slice(self, a: str, axis: int, start: int, stop: int) -> str:
        return self.add("Slice", a, *(self.constant([value], np.int64) for value in (start, stop, axis)))

    def model(self, inputs: list[ValueInfoProto], outputs: list[ValueInfoProto]) -> ModelProto:
        """The finished model, from the ports outside to the ports outside."""
        graph = helper.make_graph(self.nodes, "synthetic", inputs, outputs, self.weights)
        # Old enough for every onnxruntime that still runs.
        return helper.make_model(graph, ir_version=7, opset_imports=[helper.make_opsetid("", 13)])


def save(model: ModelProto, path: Path) -> Path:
    """Write the model; its folder is made where it is missing. The same model gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path
