"""The programs that run exported files: onnxruntime and OpenVINO behind one call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from ..io.files import damage, digest_file
from .errors import ModelFileError
from .onnx_engine import OnnxEngine
from .openvino_engine import OpenVinoEngine

PRECISIONS = ("float32", "bfloat16")
# Runtime -> suffixes of the files that it runs. A file without a choice goes to the first.
RUNTIMES = {"onnx": (".onnx",), "openvino": (".xml", ".onnx")}
# Where the weights are that a file does not hold itself.
_BESIDE = {".onnx": ".onnx.data", ".xml": ".bin"}
_ENGINES: dict[str, Callable[[Path, int, str], Engine]] = {
    "onnx": OnnxEngine,
    "openvino": OpenVinoEngine,
}


class Engine(Protocol):
    """A file, ready to run.

    Attributes:
        metadata: text by name, as the export wrote it; empty for files of other programs.
        rank: dimensions of the input: 4 (N, C, H, W), or 3 (C, H, W) where images go one by one.
    """

    metadata: dict[str, str]
    rank: int

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs by name for a float32 array in raw range.

        Raises:
            ModelFileError: the file does not take it.
        """
        ...


def is_model_file(path: str | Path) -> bool:
    """Whether a name is that of an exported file which a runtime here takes."""
    return any(Path(path).suffix.lower() in suffixes for suffixes in RUNTIMES.values())


def runtime_for(path: Path, runtime: str = "") -> str:
    """The runtime of a file.

    Args:
        path: the file.
        runtime: one of :data:`RUNTIMES`; "" chooses by the suffix.

    Raises:
        ModelFileError: an unknown runtime, or one that does not take such files.
    """
    suffix = path.suffix.lower()
    if runtime and runtime not in RUNTIMES:
        raise ModelFileError(f"runtime '{runtime}' is not one of torch, {', '.join(RUNTIMES)}")
    takers = [name for name, suffixes in RUNTIMES.items() if suffix in suffixes]
    if runtime and runtime not in takers:
        kinds = " or ".join(RUNTIMES[runtime])
        raise ModelFileError(
            f"{path}: runtime {runtime} runs exported files ({kinds}). Write one with "
            "seg-plugins export --format onnx, and give it as --model"
        )
    if not takers:
        raise ModelFileError(f"{path}: no runtime takes {suffix or 'files without suffix'}")
    return runtime or takers[0]


def damaged_part(path: Path) -> str | None:
    """Which of an exported file's parts is not what its ``.sha256`` says, and why; None: none."""
    beside = path.with_suffix(_BESIDE[path.suffix.lower()])
    for part in (path, beside):
        # Weights lie beside an ONNX file only where they are large.
        there = part.is_file() or digest_file(part).is_file()
        if (part == path or there) and (wrong := damage(part)):
            return f"{part}: {wrong}. Export it again, or copy it again."
    return None


def open_engine(
    path: str | Path, runtime: str = "", *, threads: int = 0, precision: str = "float32"
) -> Engine:
    """Open an exported file.

    Args:
        path: ``.onnx``, or ``.xml`` with its ``.bin`` beside it.
        runtime: ``onnx`` or ``openvino``; "" chooses by the suffix.
        threads: to compute with; 0: as many as there are processors for this process.
        precision: ``float32``, or ``bfloat16`` (OpenVINO, on a processor that has it).

    Raises:
        ModelFileError: the file is missing, damaged or of another kind, the runtime is not
            installed, or lacks the precision.
    """
    path = Path(path)
    name = runtime_for(path, runtime)
    if precision not in PRECISIONS:
        raise ModelFileError(f"precision '{precision}' is not one of {', '.join(PRECISIONS)}")
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file")
    if wrong := damaged_part(path):
        raise ModelFileError(wrong)
    return _ENGINES[name](path, threads, precision)
