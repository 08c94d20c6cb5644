"""Training and evaluation: set-up, the trainer and what it is built from."""

from ..config import ConfigError
from ..data import DatasetError
from ..evaluation import EvaluationError
from ..io.files import WriteError
from .checkpoint import WeightsError
from .failures import DataWorkerError, OutOfMemoryError
from .launch import argument_parser, launch
from .nonfinite import NonFiniteError
from .setup import setup
from .trainer import Trainer

# Failures whose message says all that is needed: no traceback helps.
EXPECTED_ERRORS = (
    ConfigError,
    DataWorkerError,
    DatasetError,
    EvaluationError,
    NonFiniteError,
    OutOfMemoryError,
    WeightsError,
    WriteError,
)

__all__ = ["EXPECTED_ERRORS", "Trainer", "argument_parser", "launch", "setup"]
