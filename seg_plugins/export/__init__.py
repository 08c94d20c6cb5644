"""Trained models as ONNX, TorchScript and safetensors files, each checked by running it."""

from .export import FORMATS, ExportResult, export_model, load_for_export
from .verify import ExportError

__all__ = ["FORMATS", "ExportError", "ExportResult", "export_model", "load_for_export"]
