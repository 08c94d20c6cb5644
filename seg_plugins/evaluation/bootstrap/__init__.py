"""How sure figures are: bootstrap over the images of the test set.

A resample draws as many images as the test set has, with replacement, and computes the figures
from the statistics that evaluation keeps of each image: no model, image or annotation is read.
Two runs are compared on the same resamples. Efron and Tibshirani, An Introduction to the
Bootstrap, 1993; the intervals are of percentiles (chapter 13), centred on the figure.
"""

from .comparison import Comparison, Difference, Figure, compare, compare_runs
from .statistics import ImageStatistics, read_statistics

__all__ = [
    "Comparison",
    "Difference",
    "Figure",
    "ImageStatistics",
    "compare",
    "compare_runs",
    "read_statistics",
]
