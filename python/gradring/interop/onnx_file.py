"""ONNX files: the forward graph of a model, node by node, in the operators of ONNX."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from gradring import nn
from gradring.files import replacing
from gradring.habits import explained
from gradring.ir import Graph, Node
from gradring.ir.builder import Input, trace
from gradring.nn.layer import Layer

__all__ = ["to_onnx"]

_OPSET, _IR = 20, 9  # the oldest opset with Gelu; both are of ONNX 1.15, so that runtimes of 2024 read the file
_MOST_BYTES = 2**31 - 2**20  # the largest file that the protobuf format allows, minus a margin
_ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}

Shape = tuple[int, ...]


@explained("gr.interop.to_onnx")
def to_onnx(model: Layer, path: str | os.PathLike[str], input_shape: Shape | Mapping[str, Shape] | None = None) -> None:
    """Write the model's forward pass, without dropout, as an ONNX file with the weights inside.

    The input is called ``x`` and the output ``y``; their first axis, the batch's, is of any length. ``input_shape`` is that
    of a batch, as for ``model.summary``, or a dict for a model of several inputs; it may be omitted if the first layer
    knows the width of its input. Raises ``ValueError`` for a layer that ONNX cannot express, such as ``gr.nn.Function``,
    and ``ImportError`` without the package ``onnx``.

    >>> import gradring as gr
    >>> model = gr.nn.Sequential(gr.nn.Linear(4, 8), gr.nn.ReLU(), gr.nn.Linear(8, 2)).init(0)
    >>> to_onnx(model, "model.onnx")  # doctest: +SKIP
    """
    if not isinstance(model, Layer):
        raise TypeError(f"[to_onnx] model must be a gradring layer, got {type(model).__name__}")
    try:
        import onnx
    except ImportError as error:
        raise ImportError("[to_onnx] needs the package onnx: pip install onnx") from error
    given = _first_shape(model) if input_shape is None else input_shape
    shapes = dict(given) if isinstance(given, Mapping) else {model.input_names[0]: tuple(given)}
    # Integers stay integers if the first layer accepts them; otherwise they become the model's floats.
    fields = {
        name: Input((2, *shape[1:]), integers=True, slot=slot) for slot, (name, shape) in enumerate(shapes.items())
    }
    graph, output = trace(model, fields, training=False, dtype=model.store.dtype)
    if sum(array.nbytes for array in model.store.saved.values()) > _MOST_BYTES:
        raise ValueError("[to_onnx] the weights have more than 2 GiB, which an ONNX file of one part cannot hold")
    made = _Writer(onnx, model, graph).model(list(shapes), output)
    onnx.checker.check_model(made, full_check=True)
    with replacing(path) as file:
        file.write(made.SerializeToString())


def _first_shape(model: Layer) -> Shape:
    if len(model.input_names) == 1:
        for _, layer in model.walk():
            if isinstance(layer, nn.Linear):
                return (1, layer.inputs)
            if isinstance(layer, (nn.LayerNorm, nn.RMSNorm, nn.BatchNorm1d)):
                return (1, layer.features)
            keeps_shape = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Dropout, nn.Sequential, nn.Residual)
            if type(layer) not in keeps_shape:
                break
    raise ValueError("[to_onnx] the first layer takes inputs of several shapes: give input_shape=(batch, ...)")


class _Writer:
    """Turns one graph into an ONNX model."""

    def __init__(self, onnx: Any, model: Layer, graph: Graph) -> None:
        self._onnx, self._source, self._graph = onnx, model, graph
        self._type = onnx.TensorProto.DOUBLE if model.store.dtype == "float64" else onnx.TensorProto.FLOAT
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._viewed: set[str] = set()

    def model(self, inputs: list[str], output: str) -> Any:
        helper, values = self._onnx.helper, self._graph.values
        for node in self._graph.nodes:
            self._add(node)
        self._emit("Identity", [self._read(output)], "y")
        graph = helper.make_graph(
            self._nodes,
            "gradring",
            [self._info(name, values[name].shape, values[name].dtype) for name in inputs],
            [self._info("y", values[output].shape, values[output].dtype)],
            list(self._constants.values()),
        )
        opset = [helper.make_opsetid("", _OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=_IR, producer_name="gradring")

    def _info(self, name: str, shape: Shape, dtype: str) -> Any:
        kind = self._onnx.TensorProto.INT64 if dtype == "int64" else self._type
        return self._onnx.helper.make_tensor_value_info(name, kind, ["batch", *shape[1:]])

    def _add(self, node: Node) -> None:
        if node.op == "check_ids":  # ONNX's Gather itself refuses ids that are out of range
            return
        writers = {
            "activation": self._activation,
            "add": self._sum,
            "batch_norm_inference": self._batch_norm_inference,
            "embedding": self._embedding,
            "layer_norm": self._layer_norm,
            "linear": self._linear,
            "rms_norm": self._rms_norm,
        }
        write = writers.get(node.op)
        if write is None:
            raise ValueError(
                f"[to_onnx] layer {node.origin} computes {node.op!r}, which ONNX cannot have: leave the layer out, and export "
                "the parts before and behind it"
            )
        write(node, node.outputs["y"])

    def _emit(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(self._onnx.helper.make_node(op, inputs, [output], **attributes))
        return output

    def _constant(self, name: str, array: Any) -> str:
        if name not in self._constants:
            self._constants[name] = self._onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def _number(self, name: str, value: float) -> str:
        return self._constant(name, np.asarray(value, self._source.store.dtype))

    def _read(self, name: str) -> str:
        """The form in which ONNX's nodes read a value: weights become constants, views become reshaped arrays."""
        value = self._graph.values[name]
        if name in self._source.store.saved:
            return self._constant(name, self._source.store.saved[name])
        if value.within is not None and name not in self._viewed:
            self._viewed.add(name)
            shape = self._constant(f"{name}.shape", np.asarray([-1, *value.shape[1:]], np.int64))
            self._emit("Reshape", [self._read(value.within), shape], name)
        return name

    def _linear(self, node: Node, y: str) -> None:
        x, w = self._read(node.inputs["x"]), self._read(node.inputs["w"])
        if "b" not in node.inputs:
            self._emit("MatMul", [x, w], y)
            return
        self._emit("Add", [self._emit("MatMul", [x, w], f"{y}.product"), self._read(node.inputs["b"])], y)

    def _activation(self, node: Node, y: str) -> None:
        kind, x = node.attributes["activation"], self._read(node.inputs["x"])
        if kind == "gelu":
            self._gelu(x, y, node.attributes.get("approximate", "tanh"))
        elif kind == "silu":
            self._emit("Mul", [x, self._emit("Sigmoid", [x], f"{y}.sigmoid")], y)
        elif kind in _ACTIVATIONS:
            self._emit(_ACTIVATIONS[kind], [x], y)
        else:
            raise ValueError(
                f"[to_onnx] layer {node.origin} is the activation {kind!r}, which this version cannot export"
            )

    def _gelu(self, x: str, y: str, approximate: str) -> None:
        if self._type == self._onnx.TensorProto.FLOAT:
            self._emit("Gelu", [x], y, approximate=approximate)
            return
        if approximate == "none":
            erf = self._emit(
                "Erf", [self._emit("Div", [x, self._number(f"{y}.root", math.sqrt(2))], f"{y}.scaled")], f"{y}.erf"
            )
            twice = self._emit("Add", [erf, self._number(f"{y}.one", 1.0)], f"{y}.twice")
            self._emit("Mul", [x, self._emit("Mul", [twice, self._number(f"{y}.half", 0.5)], f"{y}.below")], y)
            return
        # ONNX defines Gelu with constants in float32, so use x * sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3).
        cube = self._emit("Mul", [self._emit("Mul", [x, x], f"{y}.square"), x], f"{y}.cube")
        scaled = self._emit("Mul", [cube, self._number(f"{y}.cubic", 0.044715)], f"{y}.scaled")
        twice = self._number(f"{y}.twice", 2 * math.sqrt(2 / math.pi))
        argument = self._emit("Mul", [self._emit("Add", [x, scaled], f"{y}.sum"), twice], f"{y}.argument")
        self._emit("Mul", [x, self._emit("Sigmoid", [argument], f"{y}.sigmoid")], y)

    def _sum(self, node: Node, y: str) -> None:
        self._emit("Add", [self._read(node.inputs["a"]), self._read(node.inputs["b"])], y)

    def _layer_norm(self, node: Node, y: str) -> None:
        inputs = [self._read(node.inputs[role]) for role in ("x", "weight", "bias") if role in node.inputs]
        self._emit("LayerNormalization", inputs, y, axis=-1, epsilon=node.attributes["eps"])

    def _rms_norm(self, node: Node, y: str) -> None:
        x = self._read(node.inputs["x"])
        axes = self._constant(f"{y}.axes", np.asarray([-1], np.int64))
        mean = self._emit("ReduceMean", [self._emit("Mul", [x, x], f"{y}.square"), axes], f"{y}.mean", keepdims=1)
        moved = self._emit("Add", [mean, self._number(f"{y}.eps", node.attributes["eps"])], f"{y}.moved")
        scaled = self._emit("Div", [x, self._emit("Sqrt", [moved], f"{y}.root")], f"{y}.scaled")
        self._emit("Mul", [scaled, self._read(node.inputs["weight"])], y)

    def _batch_norm_inference(self, node: Node, y: str) -> None:
        features = self._graph.values[y].shape[1:]
        plain = {"weight": np.ones(features), "bias": np.zeros(features)}
        vectors = [
            self._read(node.inputs[role])
            if role in node.inputs
            else self._constant(f"{y}.{role}", plain[role].astype(self._source.store.dtype))
            for role in ("weight", "bias", "mean", "variance")
        ]
        self._emit("BatchNormalization", [self._read(node.inputs["x"]), *vectors], y, epsilon=node.attributes["eps"])

    def _embedding(self, node: Node, y: str) -> None:
        self._emit("Gather", [self._read(node.inputs["table"]), self._read(node.inputs["ids"])], y, axis=0)
