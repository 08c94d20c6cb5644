"""Checking a whole dataset."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from detectron2.data import MetadataCatalog

from ...io.window_names import file_of
from ...tasks import known_evaluators
from ..class_balance import median_frequency
from ..dataset import Dataset, evaluator_types
from ..datasets.catalogue import load_dataset
from ..errors import DatasetError
from ..record_form import flaw_of
from .annotations import judge_annotations
from .findings import SampleFindings
from .report import DatasetReport, Problem
from .samples import check_sample
from .windows import judge_gaps, judge_overlaps

__all__ = ["check_dataset"]


def check_dataset(
    name: str,
    *,
    other_names: tuple[str, ...] = (),
    max_samples: int | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DatasetReport:
    """Check every sample of a registered dataset.

    Args:
        name: of the dataset.
        other_names: datasets that must not share an image with it, e.g. the validation set.
        max_samples: check this many, spread evenly; None checks all.
        workers: threads; None takes as many as there are cores.
        progress: called with the samples done and their number.

    Returns:
        The report. Whatever stands in the dataset's files becomes a problem in it.
    """
    report = DatasetReport(name)
    records = _load(name, report)
    report.samples = len(records)
    metadata = MetadataCatalog.get(name)
    classes: list[str] = list(metadata.get("stuff_classes", ()))
    things: list[str] = list(metadata.get("thing_classes", ()))
    ignore_label = metadata.get("ignore_label", 255)
    chosen = _spread(records, max_samples)
    report.checked = len(chosen)
    report.problems += _judge_evaluators(name)

    def check(record: dict[str, Any]) -> SampleFindings:
        return check_sample(record, len(classes), len(things), ignore_label)

    all_findings = []
    with ThreadPoolExecutor(workers) as pool:
        for done, findings in enumerate(pool.map(check, chosen), 1):
            all_findings.append(findings)
            report.problems += findings.problems
            if progress is not None:
                progress(done, len(chosen))
    report.problems += judge_annotations(all_findings)
    report.problems += judge_gaps(chosen, all_findings)
    report.problems += _explain_missing(chosen, metadata.get("image_root"))
    _find_duplicates(chosen, all_findings, other_names, max_samples, report)
    if any(found.is_window for found in all_findings):
        for other in other_names:
            others = _load(other, DatasetReport(other))
            report.problems += judge_overlaps(records, others, other)
    # Panoptic segments are counted by their id among all classes.
    keys = {key for record in chosen if isinstance(record, dict) for key in record}
    segments = "pan_seg_file_name" in keys
    _summarise(
        all_findings, classes, classes if segments else things, report, "annotations" in keys
    )
    if report.checked == report.samples:
        _note_absent_classes(report, objects=not segments)
    return report


def _load(name: str, report: DatasetReport) -> list[dict[str, Any]]:
    def note(error: DatasetError) -> None:
        report.problems.append(Problem("annotation", str(error)))

    known = Dataset.loaded(name)
    if known is not None:  # whose wrong annotations are left out, and counted, already
        return known.records
    try:
        return load_dataset(name, note)
    except DatasetError as error:
        note(error)
    except Exception as error:  # noqa: BLE001 - loaders of others may raise anything
        note(DatasetError(f"dataset '{name}': its loader failed: {error!r}"))
    return []


def _judge_evaluators(name: str) -> list[Problem]:
    """An unknown evaluator type: fatal for an evaluation, which says so before training."""
    known = known_evaluators()
    return [
        Problem(
            "evaluator",
            f"evaluator_type '{kind}' is unknown, so that {name} cannot be a test set; known are "
            f"{', '.join(sorted(known))}",
            is_error=False,
        )
        for kind in evaluator_types(name)
        if kind not in known
    ]


def _explain_missing(records: list[dict[str, Any]], image_root: str | None) -> list[Problem]:
    """Images that are not where the file says, but in the folder of images itself."""
    names = [r["file_name"] for r in records if not flaw_of(r)]
    gone = [name for name in names if not os.path.isfile(file_of(name))]
    root = Path(image_root or "")
    near = [n for n in gone if (root / _last_part(n)).is_file()] if image_root else []
    if not near:
        return []
    return [
        Problem(
            "missing",
            f"{len(near)} of {len(gone)} missing images lie in {root} itself, e.g. "
            f"{_last_part(near[0])} for {near[0]}: correct file_name, or the folder of images in "
            "the description",
        )
    ]


def _last_part(name: str) -> str:
    """The last part of a path, as a browser would show it."""
    return unquote(Path(name).name)


def _spread(records: list[dict[str, Any]], count: int | None) -> list[dict[str, Any]]:
    if count is None or count >= len(records):
        return records
    return [records[i] for i in np.linspace(0, len(records) - 1, count).astype(int)]


def _find_duplicates(
    records: list[dict[str, Any]],
    findings: list[SampleFindings],
    other_names: tuple[str, ...],
    max_samples: int | None,
    report: DatasetReport,
) -> None:
    first: dict[str, str] = {}
    for record, found in zip(records, findings, strict=True):
        name = str(record.get("file_name")) if isinstance(record, dict) else ""
        if found.digest and found.digest in first:
            same = first[found.digest]
            report.problems.append(
                Problem("duplicate", f"{name}: the same image as {same}", is_error=False)
            )
        elif found.digest:
            first[found.digest] = name
    for other in other_names:
        seen = DatasetReport(other)
        others = _spread(_load(other, seen), max_samples)
        if not others:  # what is wrong with single records is told when that dataset is checked
            report.problems += seen.problems
        for record in others:
            if flaw_of(record) or file_of(record["file_name"]) != record["file_name"]:
                continue  # told when that dataset is checked, or by its area
            digest = check_sample({"file_name": record["file_name"]}, 0, 0, 255).digest
            if digest in first:
                report.problems.append(
                    Problem(
                        "leak",
                        f"{record['file_name']} of {other} is the same image as {first[digest]}",
                    )
                )


def _summarise(
    findings: list[SampleFindings],
    classes: list[str],
    things: list[str],
    report: DatasetReport,
    annotated: bool,
) -> None:
    pixels = [f.pixels for f in findings if f.pixels is not None]
    if pixels and classes:
        images = np.array(pixels)
        totals = images.sum(axis=0)
        report.class_pixels = dict(zip(classes, totals[:-1].tolist(), strict=True))
        report.ignored_pixels = int(totals[-1])
        report.class_weights = dict(zip(classes, median_frequency(images), strict=True))
    if annotated or any(f.instances for f in findings):
        counts = [0] * len(things)
        for found in findings:
            for class_id, count in found.instances.items():
                counts[class_id] += count
        report.class_instances = dict(zip(things, counts, strict=True))
        sizes = np.sum([f.sizes for f in findings], axis=0).tolist()
        report.object_sizes = dict(zip(("small", "medium", "large"), sizes, strict=True))


def _note_absent_classes(report: DatasetReport, *, objects: bool) -> None:
    """Warn of classes that no sample shows; stuff has no objects."""
    instances = report.class_instances if objects else {}
    for what, counts in (("pixel", report.class_pixels), ("object", instances)):
        absent = [name for name, count in counts.items() if not count]
        if absent:
            shown = ", ".join(absent[:10]) + (", ..." if len(absent) > 10 else "")
            report.problems.append(
                Problem(
                    "absent class",
                    f"{len(absent)} of {len(counts)} classes have no {what}: {shown}",
                    is_error=False,
                )
            )
