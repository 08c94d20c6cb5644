"""Trained models as ONNX, OpenVINO and other files, each checked by running it."""

from .export import FORMATS, ExportOptions, ExportResult, export_model, load_for_export
from .exported_file import ExportedFile, load_exported
from .verify import ExportError

__all__ = [
    "FORMATS",
    "ExportError",
    "ExportOptions",
    "ExportResult",
    "ExportedFile",
    "export_model",
    "load_exported",
    "load_for_export",
]
