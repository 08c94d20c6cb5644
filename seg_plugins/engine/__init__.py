"""Training and evaluation: set-up, the trainer and what it is built from."""

from ..io.weights import WeightsError
from .checkpoint import Checkpointer
from .command_line import argument_parser, launch
from .prepare import setup
from .trainer import Trainer

__all__ = ["Checkpointer", "Trainer", "WeightsError", "argument_parser", "launch", "setup"]
