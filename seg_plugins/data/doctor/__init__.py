"""The doctor: finds what is wrong with a dataset before training does."""

from .check import check_dataset
from .report import DatasetReport, Problem

__all__ = ["DatasetReport", "Problem", "check_dataset"]
