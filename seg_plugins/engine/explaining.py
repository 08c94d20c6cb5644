"""Explanations of a finished run: JSON files and pictures beside its results."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..config import ConfigError, load_config
from ..data import Dataset, apply_custom_dataset
from ..data.datasets.files import parse_json
from ..evaluation import EvaluationError
from ..evaluation.explain import SavedRun, explain_instances, explain_panoptic, explain_semantic
from ..evaluation.results import plain_json, readable_json
from ..io.command_line import command_line
from ..io.files import write_atomically
from ..visualization.explanations import draw_explanations
from ..visualization.report.run import EXPLANATIONS, digest_of

logger = logging.getLogger(__name__)

#: Stem of the results -> file of predictions beside them, and what explains it.
_EXPLAINED: dict[str, tuple[str, Callable[[SavedRun], dict[str, Any]]]] = {
    "sem_seg": ("sem_seg_predictions.json", explain_semantic),
    "instances": ("coco_instances_results.json", explain_instances),
    "panoptic_seg": ("panoptic_predictions.json", explain_panoptic),
}


def explain_run(folder: Path, column: str = "") -> list[Path]:
    """Write ``<task>_explanations.json`` and pictures for each saved prediction of a run.

    Args:
        folder: of the run, with ``config.yaml`` and ``inference/``.
        column: key of the dataset's records whose values the scores are given for.

    Returns:
        The files; their ``results`` is the digest of the results that they explain.

    Raises:
        ConfigError: no configuration, or one made with parts that are not imported.
        EvaluationError: nothing was saved, a file is damaged, or the predictions are of another
            evaluation.
    """
    config = folder / "config.yaml"
    if not config.is_file():
        raise ConfigError(f"{config} is missing: explanations need the run's configuration")
    cfg = load_config(config)
    if cfg.TEST.CLASS_AGNOSTIC:
        raise EvaluationError(
            f"{config}: TEST.CLASS_AGNOSTIC is True, and explanations are by class. Evaluate with "
            "TEST.CLASS_AGNOSTIC False."
        )
    apply_custom_dataset(cfg)
    written = []
    for task, (name, explain) in _EXPLAINED.items():
        for results in sorted((folder / "inference").rglob(f"{task}_results.json")):
            predictions = results.with_name(name)
            if predictions.is_file():
                content = _explain(results, predictions, explain, column)
                written.append(_write(content, results, cfg.INPUT.FORMAT))
            else:
                logger.info("%s: no %s beside it, so it is not explained", results, name)
    if not written:
        names = ", ".join(name for name, _ in _EXPLAINED.values())
        again = ["train", "--eval-only", "--config-file", config, "MODEL.WEIGHTS"]
        again += [folder / "model_final.pth", "OUTPUT_DIR", f"{folder}-explained"]
        again += ["TEST.SAVE_PREDICTIONS", "True"]
        raise EvaluationError(
            f"{folder}/inference has no saved predictions to explain ({names}). Evaluate with "
            f"TEST.SAVE_PREDICTIONS True: {command_line(*again)}. Those of LVIS and Cityscapes are "
            "not explained"
        )
    return written


def _explain(
    results: Path,
    predictions: Path,
    explain: Callable[[SavedRun], dict[str, Any]],
    column: str,
) -> dict[str, Any]:
    stated = parse_json(results)
    figures = stated.get("results") if isinstance(stated, dict) else None
    if not isinstance(figures, dict) or not isinstance(stated.get("dataset"), str):
        raise EvaluationError(f"{results} holds no results of an evaluation: evaluate again")
    dataset = Dataset.get(stated["dataset"])
    found = explain(SavedRun(dataset, predictions, figures, column))
    return {"dataset": dataset.name, "results": digest_of(results), **plain_json(found)}


def _write(content: dict[str, Any], results: Path, image_format: str) -> Path:
    """Write explanations and their pictures beside the results."""
    task = results.name.removesuffix("_results.json")
    draw_explanations(content, results.parent / "explanations", task, image_format)
    path = results.with_name(f"{task}{EXPLANATIONS}")
    text = readable_json(content).encode() + b"\n"
    write_atomically(path, lambda file: file.write(text))
    return path
