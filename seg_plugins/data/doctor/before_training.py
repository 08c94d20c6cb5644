"""The doctor's look at some samples before training starts: minutes saved when they are wrong."""

from __future__ import annotations

import logging

from detectron2.config import CfgNode

from ...config import ConfigError
from ...io.command_line import command_line
from ..dataset import Dataset
from ..datasets.folder_pairs import PREFIX
from ..datasets.rows import ROWS
from ..errors import allowed, share_to_allow
from ..training_records import training_records
from .check import check_dataset
from .report import DatasetReport, Problem
from .windows import judge_overlaps

__all__ = ["check_before_training"]

logger = logging.getLogger(__name__)

# Problems of a sample that the loader refuses, unless DATALOADER.MAX_DAMAGED replaces the sample.
_REFUSED = {"missing", "unreadable", "size", "colour picture"}
# Warnings about the whole file, for the log.
_WORTH_A_LINE = {"area", "crowds", "evaluator", "no data", "no mask"}
# More is no damage but a wrong folder or a wrong description.
_LARGEST_SHARE = 0.5


def check_before_training(cfg: CfgNode) -> None:
    """Check ``DATASETS.CHECK_SAMPLES`` samples of each dataset, and all training annotations.

    Raises:
        ConfigError: samples are wrong; the message names the first, the command that lists all,
            and the keys that train all the same, where there are any.
        DatasetError: see `training_records`.
    """
    if not cfg.DATASETS.CHECK_SAMPLES:
        return
    reports: dict[str, DatasetReport] = {}
    for name in cfg.DATASETS.TRAIN + cfg.DATASETS.TEST:
        report = reports[name] = check_dataset(name, max_samples=cfg.DATASETS.CHECK_SAMPLES)
        _judge(cfg, name, report)
        for problem in report.problems:
            if problem.kind in _WORTH_A_LINE:
                logger.warning("%s: %s", name, problem.message)
        logger.info("%s: %d samples, %d checked", name, report.samples, report.checked)
    training_records(cfg)
    for name in cfg.DATASETS.TRAIN:
        reports[name].problems = _overlaps(cfg, name)
        _judge(cfg, name, reports[name])


def _overlaps(cfg: CfgNode, name: str) -> list[Problem]:
    """Windows of a training set that reach into those of a test set; known by their names."""
    records = Dataset.get(name, cfg.DATALOADER.MAX_DAMAGED).records
    return [
        problem
        for test in cfg.DATASETS.TEST
        for problem in judge_overlaps(records, Dataset.get(test).records, test)
    ]


def _judge(cfg: CfgNode, name: str, report: DatasetReport) -> None:
    is_trained_on = name in cfg.DATASETS.TRAIN
    errors = [problem for problem in report.problems if problem.is_error]
    if report.samples:
        # Of these all are known, not those of some samples: `Dataset.get` has judged them.
        errors = [problem for problem in errors if problem.kind != "annotation"]
    refused = sum(problem.kind in _REFUSED for problem in errors)
    if is_trained_on and refused <= allowed(cfg.DATALOADER.MAX_DAMAGED, report.checked):
        errors = [problem for problem in errors if problem.kind not in _REFUSED]
        refused = 0
    if not errors:
        return
    keys = []
    if refused:
        keys.append(
            f"DATALOADER.MAX_DAMAGED {share_to_allow(refused, max(report.checked, refused))}"
        )
    if refused < len(errors):
        keys.append("DATASETS.CHECK_SAMPLES 0")
    helpless = not is_trained_on or not report.samples or refused > _LARGEST_SHARE * report.checked
    advice = "" if helpless else f", or set {' '.join(keys)} to train all the same"
    shown = "".join(f"\n  {problem.message}" for problem in errors[:5])
    raise ConfigError(
        f"{name}: {len(errors)} errors in {report.checked} of {report.samples} samples:{shown}\n"
        f"{_command(cfg, name)} lists all; correct them{advice}."
    )


def _command(cfg: CfgNode, name: str) -> str:
    """What lists all problems of a dataset, in a process of its own where it is known there."""
    if cfg.DATASETS.CUSTOM:
        return command_line("check", "--custom", cfg.DATASETS.CUSTOM)
    if name.startswith(PREFIX) or any(row.name == name for row in ROWS):
        return command_line("check", "--dataset", name)
    return f"print(seg_plugins.data.doctor.check_dataset({name!r}).table())"
