"""Exported files run by onnxruntime or OpenVINO, in the place of the PyTorch model."""

from __future__ import annotations

from .engines import PRECISIONS, RUNTIMES, is_model_file, open_engine
from .errors import ModelFileError
from .model import FileModel

__all__ = ["PRECISIONS", "RUNTIMES", "FileModel", "ModelFileError", "is_model_file", "open_engine"]
