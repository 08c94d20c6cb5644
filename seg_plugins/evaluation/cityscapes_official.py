"""cityscapesscripts' own scores on result folders.

Its 2.3.0 calls ``np.in1d``, which NumPy 2.4 removed. During a call, and in its two modules alone,
the name ``np`` stands for NumPy with that function; NumPy itself stays as it is.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as instance_module
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as pixel_module

from .cityscapes_files import ground_truth_files


def official_semantic_scores(
    prediction_dir: str | Path, gt_dir: str | Path, *, instance_scores: bool = True
) -> dict[str, Any]:
    """``evalPixelLevelSemanticLabeling`` on a folder of label-id PNGs, in 0..1.

    Args:
        prediction_dir: one ``<city>_<sequence>_<frame>*.png`` per ground-truth image.
        gt_dir: ``gtFine/<split>``.
        instance_scores: iIoU as well.
    """
    files = [str(file) for file in ground_truth_files(gt_dir, "labelIds").values()]
    changes = {
        "predictionPath": str(Path(prediction_dir).resolve()),
        "predictionWalk": None,
        "evalInstLevelScore": instance_scores,
        "JSONOutput": False,
        "colorized": False,
        "quiet": True,
    }
    with _arguments(pixel_module, changes) as args:
        found = [pixel_module.getPrediction(args, file) for file in files]
        return pixel_module.evaluateImgLists(found, files, args)


def official_instance_scores(prediction_dir: str | Path, gt_dir: str | Path) -> dict[str, Any]:
    """``evalInstanceLevelSemanticLabeling`` on a folder of text files and masks, in 0..1.

    Args:
        prediction_dir: one ``<city>_<sequence>_<frame>*.txt`` per ground-truth image.
        gt_dir: ``gtFine/<split>``.
    """
    files = [str(file) for file in ground_truth_files(gt_dir, "instanceIds").values()]
    changes = {
        "predictionPath": str(Path(prediction_dir).resolve()),
        "predictionWalk": None,
        "gtInstancesFile": "",
        "JSONOutput": False,
        "colorized": False,
        "quiet": True,
    }
    with _arguments(instance_module, changes) as args:
        found = [instance_module.getPrediction(file, args) for file in files]
        return instance_module.evaluateImgLists(found, files, args)["averages"]


@contextlib.contextmanager
def _arguments(module: Any, changes: dict[str, Any]) -> Iterator[Any]:
    """The module's arguments, changed, with a NumPy that knows ``in1d``; restored afterwards."""
    saved, numpy, write = dict(vars(module.args)), module.np, module.writeDict2JSON
    vars(module.args).update(changes)
    if not hasattr(np, "in1d"):
        module.np = _NumPyWithIn1d("numpy")
    # It would leave matches.json in the current folder and cache the truth beside its own source.
    module.writeDict2JSON = lambda content, path: None
    try:
        yield module.args
    finally:
        module.np, module.writeDict2JSON = numpy, write
        vars(module.args).clear()
        vars(module.args).update(saved)


class _NumPyWithIn1d(types.ModuleType):
    """NumPy, and the function that 2.4 removed, by its documented successor."""

    @staticmethod
    def in1d(values: Any, wanted: Sequence[int], invert: bool = False) -> np.ndarray:
        """Whether each value is one of `wanted`, flattened."""
        return np.isin(np.ravel(values), wanted, invert=invert)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)
