"""Training and evaluation: set-up, the trainer and what it is built from."""

from .launch import argument_parser, launch
from .setup import setup
from .trainer import Trainer

__all__ = ["Trainer", "argument_parser", "launch", "setup"]
