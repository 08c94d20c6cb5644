"""Files with weights, ours and other people's: read safely, found by name, fitted to a model."""

from .layout import Weights, WeightsError, read_weights
from .safetensors_file import read_safetensors, safetensors_bytes

__all__ = ["Weights", "WeightsError", "read_safetensors", "read_weights", "safetensors_bytes"]
