"""Which figure decides what is best, known before training starts."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator

from ...config import ConfigError
from ...evaluation import declared_metrics
from ...tasks import TASKS, main_metrics, outputs_of
from .consistency import tasks_of

logger = logging.getLogger(__name__)

_LOSSES = "validation/"


@dataclass(frozen=True)
class BestMetric:
    """A figure as the event storage names it.

    Attributes:
        name: ``group/figure``; with several test sets, after the name of one and a slash.
        higher_is_better: its direction.
        others: looked for in this order where an evaluation does not give it.
    """

    name: str
    higher_is_better: bool
    others: tuple[str, ...] = ()


def find_best_metric(cfg: CfgNode, evaluators: Mapping[str, DatasetEvaluator]) -> BestMetric | None:
    """The figure of ``TEST.BEST_METRIC``; empty takes the main one of the first test set.

    Args:
        cfg: names model, test sets and figure.
        evaluators: by the test set that each scores.

    Returns:
        None where nothing is evaluated.

    Raises:
        ConfigError: no evaluation gives the figure; those that come nearest are listed.
    """
    wanted = cfg.TEST.BEST_METRIC
    given = _given(cfg, evaluators)
    if not evaluators:
        return None
    silent = [name for name, e in evaluators.items() if not declared_metrics(e)]
    if not wanted:
        if next(iter(evaluators)) in silent:
            return _usual(cfg, evaluators)
        return _main(given, list(evaluators))
    if wanted in given:
        return BestMetric(wanted, given[wanted])
    if wanted.startswith(_LOSSES) and cfg.TEST.LOSS:  # the model names its losses in training
        return BestMetric(wanted, False)
    # With several test sets, a figure's name says which of them gives it.
    silent = [name for name in silent if len(evaluators) == 1 or wanted.startswith(f"{name}/")]
    if silent:
        logger.warning(
            "TEST.BEST_METRIC %s: the evaluator of %s does not declare its figures (a method "
            "metrics()); a higher value is taken for better.", wanted, ", ".join(silent),
        )  # fmt: skip
        return BestMetric(wanted, True)
    raise ConfigError(
        f"TEST.BEST_METRIC {wanted} is given by no evaluation. Nearest: "
        f"{', '.join(_nearest(wanted, list(given)))}{_all_others(given)}"
    )


def _given(cfg: CfgNode, evaluators: Mapping[str, DatasetEvaluator]) -> dict[str, bool]:
    """Every figure that will be in the event storage, and whether higher is better."""
    absent = _absent(cfg)
    given = {f"{_LOSSES}total_loss": False} if cfg.TEST.LOSS and evaluators else {}
    for dataset, evaluator in evaluators.items():
        prefix = f"{dataset}/" if len(evaluators) > 1 else ""
        for name, higher in declared_metrics(evaluator).items():
            if name.partition("/")[0] not in absent:
                given[prefix + name] = higher
    return given


def _absent(cfg: CfgNode) -> set[str]:
    """Groups of figures that the model has no output for."""
    tasks = tasks_of(cfg.MODEL.META_ARCHITECTURE)
    outputs = outputs_of(tasks) if tasks else [t.output for t in TASKS]  # it need not say
    absent = {group for task in TASKS if task.output not in outputs for group in task.groups}
    if "instances" in tasks and not cfg.MODEL.MASK_ON:
        absent |= {"segm", "boundary"}
    return absent


def _usual(cfg: CfgNode, evaluators: Mapping[str, DatasetEvaluator]) -> BestMetric | None:
    """The main figures of the model's tasks, whose names Detectron2's own evaluators share."""
    first = next(iter(evaluators))
    prefix, absent = f"{first}/" if len(evaluators) > 1 else "", _absent(cfg)
    names = [prefix + n for n in main_metrics() if n.partition("/")[0] not in absent]
    logger.info(
        "The evaluator of %s does not declare its figures (a method metrics()): the first of %s "
        "that it gives is TEST.BEST_METRIC", first, ", ".join(names),
    )  # fmt: skip
    return BestMetric(names[0], True, tuple(names[1:])) if names else None


def _main(given: Mapping[str, bool], datasets: list[str]) -> BestMetric | None:
    prefix = f"{datasets[0]}/" if len(datasets) > 1 else ""
    for metric in main_metrics():
        if prefix + metric in given:
            if prefix:
                logger.info("TEST.BEST_METRIC is %s%s; another may be named.", prefix, metric)
            return BestMetric(prefix + metric, given[prefix + metric])
    others = [name for name in given if name.startswith(prefix)]
    return BestMetric(others[0], given[others[0]]) if others else None


def _all_others(given: Mapping[str, bool]) -> str:
    whole = [name for name in given if "-" not in name.rpartition("/")[2]]
    return f". There are, besides those of single classes: {', '.join(whole)}" if whole else ""


def _nearest(wanted: str, given: list[str]) -> list[str]:
    last = wanted.rpartition("/")[2]
    same = [name for name in given if name.rpartition("/")[2] == last]
    near = difflib.get_close_matches(wanted, given, n=5, cutoff=0.3)
    main = [name for name in given if name.endswith(main_metrics())]
    return list(dict.fromkeys([*same, *near, *main]))[:8] or given[:8]
