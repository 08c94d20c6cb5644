"""Trained models as ONNX, OpenVINO and other files, each checked by running it."""

from .export import FORMATS, ExportOptions, ExportResult, export_model, load_for_export
from .verify import ExportError

__all__ = [
    "FORMATS",
    "ExportError",
    "ExportOptions",
    "ExportResult",
    "export_model",
    "load_for_export",
]
