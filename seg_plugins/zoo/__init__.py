"""Trained models by name: ``tools/predict.py --model nuclei``, ``MODEL.WEIGHTS zoo://nuclei``.

>>> seg_plugins.zoo.get("nuclei").licence
>>> predictor = Predictor.from_zoo("nuclei")
"""

from .models import MODELS, ZooModel, get
from .weights import FOLDER_VARIABLE, ZooWeights

__all__ = ["FOLDER_VARIABLE", "MODELS", "ZooModel", "ZooWeights", "get"]
