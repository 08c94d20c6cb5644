"""Trained models by name: ``seg-plugins predict --model nuclei``, ``MODEL.WEIGHTS zoo://nuclei``.

>>> model = seg_plugins.zoo.get("nuclei")
>>> predictor = Predictor.from_config(model.config, model.address)
"""

from .models import MODELS, ZooModel, get
from .weights import FOLDER_VARIABLE, ZooWeights

__all__ = ["FOLDER_VARIABLE", "MODELS", "ZooModel", "ZooWeights", "get"]
