"""Explanations of a finished run: JSON files and pictures beside its results."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..config import ConfigError, load_config
from ..data import Dataset, apply_custom_dataset
from ..evaluation import EvaluationError
from ..evaluation.explain import explain_instances, explain_panoptic, explain_semantic
from ..evaluation.results import plain_json, readable_json
from ..io.files import write_atomically
from ..visualization.explanations import draw_explanations
from ..visualization.report.run import EXPLANATIONS, digest_of

logger = logging.getLogger(__name__)

#: Stem of the results -> file of predictions beside them, and what explains it.
_EXPLAINED: dict[str, tuple[str, Callable[..., dict[str, Any]]]] = {
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
        EvaluationError: nothing was saved, or the predictions are of another evaluation.
    """
    config = folder / "config.yaml"
    if not config.is_file():
        raise ConfigError(f"{config} is missing: explanations need the run's configuration")
    cfg = load_config(config)
    apply_custom_dataset(cfg)
    written = []
    for task, (name, explain) in _EXPLAINED.items():
        for results in sorted((folder / "inference").rglob(f"{task}_results.json")):
            predictions = results.with_name(name)
            if predictions.is_file():
                made = partial(explain, column=column)
                written.append(_explain(results, predictions, made, cfg.INPUT.FORMAT))
            else:
                logger.info("%s: no %s beside it, so it is not explained", results, name)
    if not written:
        names = ", ".join(name for name, _ in _EXPLAINED.values())
        raise EvaluationError(
            f"{folder}/inference has no saved predictions to explain ({names}). Evaluate with "
            "TEST.SAVE_PREDICTIONS True: tools/train_net.py --eval-only --config-file "
            f"{config} MODEL.WEIGHTS {folder}/model_final.pth OUTPUT_DIR {folder}-explained "
            "TEST.SAVE_PREDICTIONS True"
        )
    return written


def _explain(
    results: Path, predictions: Path, explain: Callable[..., dict[str, Any]], image_format: str
) -> Path:
    stated = json.loads(results.read_text(encoding="utf-8"))
    dataset = Dataset.get(stated["dataset"])
    content = {
        "dataset": dataset.name,
        "results": digest_of(results),
        **plain_json(explain(dataset, predictions, stated["results"])),
    }
    task = results.name.removesuffix("_results.json")
    pictures = results.parent / "explanations"
    draw_explanations(content, pictures, task, image_format)
    path = results.with_name(f"{task}{EXPLANATIONS}")
    text = readable_json(content).encode() + b"\n"
    write_atomically(path, lambda file: file.write(text))
    return path
