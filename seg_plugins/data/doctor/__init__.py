"""The doctor: finds what is wrong with a dataset before training does."""

from .before_training import check_before_training
from .check import check_dataset
from .report import DatasetReport, Problem

__all__ = ["DatasetReport", "Problem", "check_before_training", "check_dataset"]
