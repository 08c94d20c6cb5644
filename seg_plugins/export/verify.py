"""Running an exported file beside the system it came from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..io.errors import SegPluginsError
from ..runtime.onnx_engine import runtime_errors

TOLERANCE = 1e-3
#: Of files of fewer bits: see :func:`compare_loosely`.
LOOSE_MAP, LOOSE_INSTANCES = 0.03, 0.1
#: Outputs with a value for each pixel.
MAPS = ("logits", "heatmaps", "offsets")

# A file's outputs by name, for an input.
Runner = Callable[[Tensor], dict[str, Tensor]]


class ExportError(SegPluginsError, RuntimeError):
    """A model could not be exported, or the file gives other results; the message says where."""


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        shape: of the input.
        differences: output name -> greatest difference; infinity where shapes differ. Boxes are
            divided by the image's longer side.
        count: values of the first output compared.
        elsewhere: maxima that a SegNet's file has in another place of their window, where the
            value is the same but for rounding; the comparison is with the file's places.
    """

    shape: tuple[int, ...]
    differences: dict[str, float]
    count: int
    elsewhere: int = 0

    @property
    def size(self) -> str:
        """Of the input, for people."""
        return " x ".join(map(str, self.shape))

    def __str__(self) -> str:
        """One line."""
        found = ", ".join(f"{name} {value:.2e}" for name, value in self.differences.items())
        line = f"{self.size}: greatest difference {found} ({self.count} values"
        return line + (f", {self.elsewhere} maxima among equals)" if self.elsewhere else ")")


def compare(run: Runner, reference: Runner, inputs: Sequence[Tensor]) -> Iterator[Check]:
    """Run both on each input.

    Args:
        run: the exported file.
        reference: the system, in eager mode.
        inputs: images.

    Raises:
        ExportError: a difference above ``TOLERANCE``, after its check was handed out.
    """
    for images in inputs:
        expected = reference(images)
        found = _in_order_of(expected, run(images))
        side = max(images.shape[-2:])
        greatest = {
            name: _difference(found[name], value) / (side if name == "boxes" else 1)
            for name, value in expected.items()
        }
        count = next(iter(expected.values())).numel()
        yield (check := Check(tuple(images.shape), greatest, count))
        # Written so that NaN counts as a difference.
        if not all(value <= TOLERANCE for value in greatest.values()):
            raise ExportError(
                f"the exported file disagrees with the model: {check}; {TOLERANCE} is allowed"
            )


def compare_loosely(run: Runner, reference: Runner, inputs: Sequence[Tensor]) -> Iterator[Check]:
    """The same for a file of fewer bits, which may differ by more.

    Maps are judged by their greatest difference as a share of their greatest value, instances by
    the share of those, on either side, that have no counterpart of the same class, whose box is
    nearer than 2% of the image's side and whose score is nearer than 0.05.

    Raises:
        ExportError: a map differs by more than ``LOOSE_MAP``, or more than ``LOOSE_INSTANCES``
            have no counterpart.
    """
    for images in inputs:
        expected, found = reference(images), run(images)
        shares = {
            name: _difference(found[name], value) / max(float(value.abs().max()), 1e-6)
            for name, value in expected.items()
            if name in MAPS
        }
        allowed = dict.fromkeys(shares, LOOSE_MAP)
        if "scores" in expected:
            side = max(images.shape[-2:])
            shares["instances"] = _without_counterpart(found, expected, side)
            allowed["instances"] = LOOSE_INSTANCES
        count = next(iter(expected.values())).numel()
        yield (check := Check(tuple(images.shape), shares, count))
        if not all(value <= allowed[name] for name, value in shares.items()):
            raise ExportError(
                f"the exported file disagrees with the model: {check}; allowed are "
                + ", ".join(f"{name} {value}" for name, value in allowed.items())
            )


def _without_counterpart(found: dict[str, Tensor], expected: dict[str, Tensor], side: int) -> float:
    if not len(found["scores"]) + len(expected["scores"]):
        return 0.0
    boxes = (found["boxes"][:, None] - expected["boxes"]).abs().amax(dim=2) <= 0.02 * side
    scores = (found["scores"][:, None] - expected["scores"]).abs() <= 0.05
    near = boxes & scores & (found["classes"][:, None] == expected["classes"])
    matched = int(near.any(dim=0).sum() + near.any(dim=1).sum())
    return 1 - matched / (len(found["scores"]) + len(expected["scores"]))


def _in_order_of(expected: dict[str, Tensor], found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Detections in the order of those that they are nearest to.

    They come by falling score, and two whose scores differ by a rounding error may change places.
    """
    names = {"boxes", "scores", "classes"}
    if not names <= expected.keys() or any(found[n].shape != expected[n].shape for n in names):
        return found
    order = []
    left = torch.ones(len(expected["scores"]), dtype=torch.bool)
    wanted = zip(expected["boxes"], expected["scores"], expected["classes"], strict=True)
    for box, score, kind in wanted:
        far = (found["boxes"] - box).abs().amax(dim=1) + (found["scores"] - score).abs()
        far = far.double() + 1e9 * (found["classes"] != kind) + 1e12 * ~left
        nearest = int(far.argmin())
        left[nearest] = False
        order.append(nearest)
    return {name: value if name in MAPS else value[order] for name, value in found.items()}


def _difference(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float((found.double() - expected.double()).abs().max()) if found.numel() else 0.0


def onnx_runner(path: Path) -> Runner:
    """Run an ONNX file on the CPU.

    Raises:
        ExportError: onnxruntime does not accept the file, or, when run, the image; file, shape
            and what to do are named.
    """
    session = onnx_session(path, path.name)
    names = [output.name for output in session.get_outputs()]

    def run(images: Tensor) -> dict[str, Tensor]:
        return dict(zip(names, run_session(session, images, path.name), strict=True))

    return run


def onnx_session(model: Path | bytes, name: str) -> Any:
    """An onnxruntime session on the CPU.

    Args:
        model: a file, or its content.
        name: of the file, for errors.

    Raises:
        ExportError: onnxruntime is not installed or does not accept the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ExportError(
            f"{error}: the check of {name} needs the export extra, pip install "
            "'seg_plugins[export]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is in the exception
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except runtime_errors() as error:
        raise ExportError(
            f"onnxruntime {onnxruntime.__version__} does not accept {name}: {lines_of(error)[0]}. "
            "Try a newer onnxruntime, or --format torchscript."
        ) from error


def run_session(session: Any, images: Tensor, name: str) -> list[Tensor]:
    """All outputs for an input.

    Raises:
        ExportError: onnxruntime cannot run the file on it.
    """
    source = session.get_inputs()[0]
    try:
        values: Sequence[np.ndarray] = session.run(None, {source.name: images.numpy()})
    except runtime_errors() as error:
        taken = f"{name} (input {' x '.join(map(str, source.shape))})"
        raise ExportError(cannot_run("onnxruntime", taken, images, lines_of(error)[0])) from error
    return [torch.from_numpy(np.ascontiguousarray(value)) for value in values]


def cannot_run(runtime: str, name: str, images: Tensor, reason: str) -> str:
    """The text of an error: what did not run on which image, and what to do."""
    size = " x ".join(map(str, images.shape))
    if re.search(r"alloc|out of memory", reason, re.IGNORECASE):
        fix = (
            "Memory does not suffice: free some, or export a sliding window of fewer pixels "
            "(MODEL.INFERENCE.MODE slide, MODEL.INFERENCE.WINDOW)."
        )
    else:
        fix = (
            "Give it as many channels as the model was trained with, and no image smaller than "
            "its window (MODEL.INFERENCE.WINDOW) or than the network takes."
        )
    return f"{runtime} cannot run {name} on {size}: {reason}. {fix}"


def lines_of(error: Exception) -> list[str]:
    """The lines of an error's text that say something; at least one."""
    lines = [line.strip(" .") for line in str(error).splitlines()]
    return [line for line in lines if line] or [repr(error)]


def torchscript_runner(path: Path, names: Sequence[str]) -> Runner:
    """Run a TorchScript file on the CPU; its outputs get the names given.

    Raises:
        ExportError: when run, the file does not take the image.
    """
    module = torch.jit.load(path, map_location="cpu").eval()

    @torch.no_grad()
    def run(images: Tensor) -> dict[str, Tensor]:
        try:
            values = module(images)
        except (RuntimeError, torch.jit.Error) as error:
            reason = lines_of(error)[-1]  # after the interpreter's traceback
            raise ExportError(cannot_run("TorchScript", path.name, images, reason)) from error
        return dict(zip(names, values if isinstance(values, tuple) else [values], strict=True))

    return run
