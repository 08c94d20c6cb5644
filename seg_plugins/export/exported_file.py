"""An exported file from outside: whole, and written by this package, or an error that names it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..runtime.engines import damaged_part
from ..runtime.openvino_engine import metadata_of
from .metadata import PRODUCER
from .openvino_file import openvino_runner, read_openvino
from .verify import ExportError, Runner, onnx_runner, onnx_session

_SUFFIXES = (".onnx", ".xml")


@dataclass(frozen=True)
class ExportedFile:
    """A file that can be run.

    Attributes:
        path: the file.
        metadata: text by name: see :func:`~.metadata.file_metadata`.
        run: (N, C, H, W) or (C, H, W) float32, as the file's input is, to outputs by name.
    """

    path: Path
    metadata: dict[str, str]
    run: Runner


def load_exported(path: str | Path) -> ExportedFile:
    """Open a file that ``seg-plugins export`` wrote as ONNX or OpenVINO, to run on the CPU.

    Raises:
        ExportError: it is missing, damaged (where its ``.sha256`` lies beside it, to the bit), of
            another program or format, or its runtime is not installed.
    """
    path = Path(path)
    if path.suffix not in _SUFFIXES:
        raise ExportError(f"{path}: exported files that can be run end in {' or '.join(_SUFFIXES)}")
    if wrong := damaged_part(path):
        raise ExportError(wrong)
    if path.suffix == ".onnx":
        metadata = dict(onnx_session(path, str(path)).get_modelmeta().custom_metadata_map)
    else:
        metadata = metadata_of(read_openvino(path))
    if metadata.get("producer") != PRODUCER:
        raise ExportError(
            f"{path} was not written by seg-plugins export: its metadata do not say what it takes. "
            "Export the model by tools/export_model.py."
        )
    run = onnx_runner(path) if path.suffix == ".onnx" else openvino_runner(path)
    return ExportedFile(path, metadata, run)
