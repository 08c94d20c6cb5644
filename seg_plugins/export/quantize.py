"""INT8 files: quantised on images of a dataset, with what the metric cannot spare kept in float."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..config import ConfigError
from .metric import MetricCheck
from .onnx_file import load_onnx, metadata_of, save_onnx
from .verify import ExportError

# What has weights, and what stands between such layers in a network.
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_BETWEEN = ("Relu", "Clip", "Add", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool", "Mul")
# Inputs that hold values; the others of these operators say where, how many or how large. Regions
# are pooled at places and put back by index: by those, boxes would count as part of the network.
_VALUES = {
    "Expand": (0,), "Gather": (0,), "GatherElements": (0,), "GatherND": (0,), "Pad": (0,),
    "Reshape": (0,), "Resize": (0,), "RoiAlign": (0,), "ScatterElements": (0, 2),
    "ScatterND": (0, 2), "Slice": (0,), "Tile": (0,), "TopK": (0,), "Where": (1, 2),
}  # fmt: skip

Measure = Callable[[Path], list[MetricCheck]]


@dataclass(frozen=True)
class Quantized:
    """What a search found.

    Attributes:
        layers: how many layers there are.
        kept: names of the layers that stay in float, the most sensitive first.
        metrics: of the file and the model.
    """

    layers: int
    kept: tuple[str, ...]
    metrics: tuple[MetricCheck, ...]


def quantize(
    path: Path,
    images: Sequence[Tensor],
    measure: Measure,
    max_loss: float,
    report: Callable[[str], None],
) -> Quantized:
    """Turn a float32 ONNX file into INT8, as far as the metric permits.

    First every layer is quantised; while a main metric falls by more than `max_loss`, twice as
    many of the layers that lose most by it stay in float, up to half of them. How much a layer
    loses is the greatest noise that rounding adds to its input, its output or its weights, as a
    share of the signal.

    Args:
        path: the file, which is overwritten.
        images: to find the range of values on, as the file takes them.
        measure: the metrics of an ONNX file.
        max_loss: points.
        report: gets a line for each attempt.

    Raises:
        ConfigError: there is nothing to quantise.
        ExportError: the metric falls by more even so.
    """
    model = load_onnx(path)
    metadata = metadata_of(model)
    with tempfile.TemporaryDirectory(prefix="seg_plugins.int8.") as folder:
        work = _Work(path, images, Path(folder))
        kept, number = 0, len(work.layers)
        tried: list[list[MetricCheck]] = []
        while True:
            names = work.ranking[:kept] if kept else []
            work.write(names)
            tried.append(checks := measure(work.draft))
            loss = max(check.loss for check in checks)
            for check in checks:
                report(f"INT8, {kept} of {number} layers in float: {check}")
            if loss <= max_loss:
                break
            if kept * 2 >= number:
                raise ExportError(
                    f"INT8: {checks[0].name} falls by {loss:.2f} points on {checks[0].dataset} "
                    f"with {kept} of {number} layers in float; --max-loss {max_loss} is allowed. "
                    "Use --float16 or float32, or allow more."
                )
            kept = max(kept * 2, 1)
        save_onnx(load_onnx(work.draft), path, metadata | {"precision": "int8"})
    labels = [work.label(name) for name in names]
    for label in labels:
        report(f"stays in float: {label}")
    return Quantized(number, tuple(labels), tuple(checks))


class _Work:
    """The file on its way, in a folder."""

    def __init__(self, path: Path, images: Sequence[Tensor], folder: Path) -> None:
        from onnxruntime.quantization.shape_inference import quant_pre_process

        self.images = [image.numpy() for image in images]
        self.prepared, self.draft = folder / "prepared.onnx", folder / "model.onnx"
        with _quiet():
            quant_pre_process(path, self.prepared, skip_symbolic_shape=True)
        self.model = load_onnx(self.prepared)
        self.nodes = network_nodes(self.model)
        weights = {tensor.name for tensor in self.model.graph.initializer}
        self.layers = {
            node.name: node
            for node in self.nodes
            if node.op_type in _LAYERS and weights & set(node.input)
        }
        if not self.layers:
            raise ConfigError(
                "--int8 finds no layer: windows and tiles are a loop in the file, which is not "
                "quantised. Set MODEL.INFERENCE.MODE whole."
            )
        self.source = self.model.graph.input[0].name
        self._ranking: list[str] | None = None

    def write(self, kept: Sequence[str]) -> None:
        """Write the draft, with the layers `kept` in float."""
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        types = (*_LAYERS, *_BETWEEN)
        with _quiet():
            quantize_static(
                self.prepared,
                self.draft,
                _Reader(self.source, self.images),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(types),
                nodes_to_quantize=[n.name for n in self.nodes if n.op_type in types],
                nodes_to_exclude=list(kept),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )

    @property
    def ranking(self) -> list[str]:
        """Names of the layers, those that lose most first; of the draft with all of them."""
        if self._ranking is None:
            noise = self._noise()
            losses = {
                name: max(noise.get(value, 0.0) for value in (*node.input, *node.output))
                for name, node in self.layers.items()
            }
            self._ranking = sorted(losses, key=lambda name: -losses[name])
        return self._ranking

    def _noise(self) -> dict[str, float]:
        """Noise by signal that rounding adds to each value and weight, by name."""
        from onnxruntime.quantization import qdq_loss_debug as debug

        with _quiet():
            return self._noise_by(debug)

    def _noise_by(self, debug: Any) -> dict[str, float]:
        found: dict[str, float] = {}
        matching = debug.create_weight_matching(str(self.prepared), str(self.draft))
        for name, pair in matching.items():
            found[name] = _share(pair["float"], pair["dequantized"])
        extended = {}
        for key, file in (("float", self.prepared), ("int8", self.draft)):
            extended[key] = file.with_name(f"{key}_with_values.onnx")
            debug.modify_model_output_intermediate_tensors(file, extended[key])
        few = self.images[:2]
        values = {
            key: debug.collect_activations(str(file), _Reader(self.source, few))
            for key, file in extended.items()
        }
        for name, match in debug.create_activation_matching(
            values["int8"], values["float"]
        ).items():
            found[name] = max(
                _share(before, after)
                for before, after in zip(match["pre_qdq"], match["post_qdq"], strict=True)
            )
        return found

    def label(self, name: str) -> str:
        """A layer as people know it: its weight's name, which has the module's path."""
        weights = {tensor.name for tensor in self.model.graph.initializer}
        own = [value for value in self.layers[name].input if value in weights]
        return f"{own[0]} ({self.layers[name].op_type})"


def _share(before: Any, after: Any) -> float:
    signal = float(np.square(before, dtype=np.float64).mean())
    noise = float(np.square(np.subtract(before, after, dtype=np.float64)).mean())
    return noise / max(signal, 1e-12)


def network_nodes(model: Any) -> list[Any]:
    """The nodes of a graph that lead to a layer with weights: the network.

    What follows it, boxes, scores and their selection, is left out: places need all their bits.
    So are products of values that the network gives: CondInst's masks come of one with the places
    of all pixels, beside which nothing would be left of its maps in 8 bits.
    """
    sizes = _size_arithmetic(model)
    producers = {output: node for node in model.graph.node for output in node.output}
    fixed = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:  # weights may be turned or scaled before a layer takes them
        if fixed.issuperset(filter(None, node.input)):
            fixed.update(node.output)
    waiting = [
        node
        for node in model.graph.node
        if node.op_type in _LAYERS and not fixed.isdisjoint(node.input[:2])
    ]
    found: dict[str, Any] = {}
    while waiting:
        node = waiting.pop()
        if node.name in found or node.name in sizes:
            continue
        found[node.name] = node
        places = _VALUES.get(node.op_type, range(len(node.input)))
        values = [node.input[place] for place in places if place < len(node.input)]
        waiting += [producers[value] for value in values if value in producers]
    return [node for node in model.graph.node if node.name in found]


def _size_arithmetic(model: Any) -> set[str]:
    """Names of the nodes that compute with the sizes of maps alone: paddings, for instance."""
    sizes: set[str] = set()
    values: set[str] = set()
    constant = {tensor.name for tensor in model.graph.initializer} | {""}
    for node in model.graph.node:  # in the order of computation
        if node.op_type == "Constant":
            constant |= set(node.output)
            continue
        varying = set(node.input) - constant
        if node.op_type in ("Shape", "Size") or (varying and varying <= values):
            sizes.add(node.name)
            values |= set(node.output)
    return sizes


class _Reader:
    """Images for onnxruntime's calibration."""

    def __init__(self, name: str, images: Sequence[np.ndarray]) -> None:
        self.name, self.images = name, images
        self.rewind()

    def rewind(self) -> None:
        """Begin anew."""
        self.left: Iterator[np.ndarray] = iter(self.images)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return ({self.name: image} for image in self.left)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next input; None at the end."""
        image = next(self.left, None)
        return None if image is None else {self.name: image}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice that onnxruntime's tools log and print."""
    level = logging.root.level
    logging.root.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.root.setLevel(level)
