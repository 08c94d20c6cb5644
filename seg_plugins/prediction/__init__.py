"""Using a trained model: images, folders, videos and huge rasters in; pictures and files out."""

from .errors import PredictionError
from .labels import ClassNameError
from .outputs import join
from .prediction import Prediction
from .predictor import Predictor

__all__ = ["ClassNameError", "Prediction", "PredictionError", "Predictor", "join"]
