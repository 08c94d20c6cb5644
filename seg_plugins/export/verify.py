"""Running an exported file beside the system it came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

TOLERANCE = 1e-3

# A file's outputs by name, for an input.
Runner = Callable[[Tensor], dict[str, Tensor]]


class ExportError(RuntimeError):
    """A model could not be exported, or the file gives other results; the message says where."""


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        shape: of the input.
        differences: output name -> greatest difference; infinity where shapes differ. Boxes are
            divided by the image's longer side.
        count: values of the first output compared.
        beyond: of these, how many differ by more than ``TOLERANCE``.
    """

    shape: tuple[int, ...]
    differences: dict[str, float]
    count: int
    beyond: int

    def __str__(self) -> str:
        """One line."""
        found = ", ".join(f"{name} {value:.2e}" for name, value in self.differences.items())
        size = " x ".join(map(str, self.shape))
        line = f"{size}: greatest difference {found} ({self.count} values"
        return line + (f", {self.beyond} beyond {TOLERANCE})" if self.beyond else ")")


def compare(
    run: Runner, reference: Runner, inputs: Sequence[Tensor], unstable: float = 0.0
) -> Iterator[Check]:
    """Run both on each input.

    Args:
        run: the exported file.
        reference: the system, in eager mode.
        inputs: images.
        unstable: share of the values that may differ by more. SegNet puts values back where a
            maximum was: of two candidates as good as equal, rounding decides which one that is.

    Raises:
        ExportError: a difference above ``TOLERANCE``, after its check was handed out.
    """
    for images in inputs:
        found, expected = run(images), reference(images)
        side = max(images.shape[-2:])
        apart = {
            name: _differences(found[name], value) / (side if name == "boxes" else 1)
            for name, value in expected.items()
        }
        greatest = {k: float(v.max()) if v.numel() else 0.0 for k, v in apart.items()}
        first = next(iter(apart.values()))
        # Written so that NaN counts as a difference.
        beyond = {k: int((~(v <= TOLERANCE)).sum()) for k, v in apart.items()}
        count = next(iter(beyond.values()))
        yield (check := Check(tuple(images.shape), greatest, first.numel(), count))
        if any(beyond[name] > unstable * value.numel() for name, value in apart.items()):
            raise ExportError(
                f"the exported file disagrees with the model: {check}; {TOLERANCE} is allowed"
            )


def _differences(found: Tensor, expected: Tensor) -> Tensor:
    if found.shape != expected.shape:
        return torch.full((1,), torch.inf)
    return (found.double() - expected.double()).abs()


def onnx_runner(path: Path) -> Runner:
    """Run an ONNX file on the CPU.

    Raises:
        ExportError: onnxruntime does not accept the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except RuntimeError as error:
        raise ExportError(f"onnxruntime does not accept {path}: {error}") from error
    names = [output.name for output in session.get_outputs()]
    source = session.get_inputs()[0].name

    def run(images: Tensor) -> dict[str, Tensor]:
        values: Sequence[Any] = session.run(None, {source: images.numpy()})
        return dict(zip(names, map(_tensor, values), strict=True))

    return run


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def torchscript_runner(path: Path, names: Sequence[str]) -> Runner:
    """Run a TorchScript file on the CPU; its outputs get the names given."""
    module = torch.jit.load(path, map_location="cpu").eval()

    @torch.no_grad()
    def run(images: Tensor) -> dict[str, Tensor]:
        values = module(images)
        return dict(zip(names, values if isinstance(values, tuple) else [values], strict=True))

    return run
