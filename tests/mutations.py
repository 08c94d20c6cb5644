"""Plant faults in the evaluators, one by one, and print which test catches each.

    make mutations                          all of them
    python -m tests.mutations pq-void       those of a name
    python -m tests.mutations --list        their names, without a run

A fault is a change of one line of source, made while the module is imported in a process of its
own: no file is written. It is caught when a test fails that passes without it. Exits with status 1
where one survives: then a test is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.abc
import importlib.machinery
import io
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EVALUATION = ROOT / "seg_plugins" / "evaluation"


@dataclass(frozen=True)
class Mutation:
    """A fault.

    Attributes:
        name: for the command line and the table.
        file: below ``seg_plugins/evaluation``.
        old: what stands there, once.
        new: what is put in its place.
        tests: files below ``tests/evaluation`` of which one has to notice.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str

    def source(self) -> str:
        """The module with the fault.

        Raises:
            ValueError: `old` does not stand there once: the module has changed.
        """
        text = (EVALUATION / self.file).read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(
                f"{self.name}: {self.file} has {text.count(self.old)} times {self.old!r}: give "
                "what stands there now"
            )
        return text.replace(self.old, self.new)


MUTATIONS = [
    Mutation(*row)
    for row in (
        # ---- COCO: ranges, thresholds, limits
        ("small-ends-at-1023", "average_precision.py", "[0, 32**2]", "[0, 32**2 - 1]",
         "test_coco_engine"),
        ("large-begins-at-medium", "average_precision.py", "[96**2, 1e5**2]]", "[32**2, 1e5**2]]",
         "test_coco_engine"),
        ("ap75-at-0.7", "average_precision.py", "threshold=0.75)", "threshold=0.7)",
         "test_coco_engine"),
        ("sizes-swapped", "average_precision.py", '("", "s", "m", "l")', '("", "m", "s", "l")',
         "test_coco_engine"),
        ("ar-at-the-wrong-limit", "average_precision.py", "self.recall[:, :, 0, m]",
         "self.recall[:, :, 0, -1]", "test_coco_engine"),
        ("limit-of-10-is-9", "instance.py", "min(10, max_dets_per_image)",
         "min(9, max_dets_per_image)", "test_coco_engine"),
        ("box-areas-for-masks", "coco_engine.py", "rows[:, 1:3], rows[:, 3], rows[:, 4] =",
         "rows[:, 1:3], _, _ =", "test_coco_engine"),
        ("images-without-detections-dropped", "coco_engine.py", "rest = np.flatnonzero(left)",
         "rest = np.flatnonzero(left)[:0]", "test_coco_engine"),
        ("part-cuts-an-image", "found_instances.py", "ends = np.cumsum(np.frombuffer(",
         "ends = np.arange(1, 1 + len(self)) if self._images else np.cumsum(np.frombuffer(",
         "test_coco_engine"),
        # ---- COCO: ids, crowds, order
        ("crowd-counted", "coco_truth.py", 'iscrowd=np.array([bool(a.get("iscrowd", 0))',
         "iscrowd=np.array([False", "test_coco_engine"),
        ("score-order-reversed", "found_instances.py", "rows[:, _SCORE] = scores",
         "rows[:, _SCORE] = -scores", "test_coco_engine"),
        ("classes-shifted", "coco_truth.py", "found[classes + 1] = np.arange(len(classes))",
         "found[classes + 1] = np.arange(len(classes))[::-1]", "test_instance_truth"),
        ("category-ids-unmapped", "instance.py",
         "ids = [self._truth.category_ids[category] for category in categories]",
         "ids = categories.tolist()", "test_instance"),
        ("crowd-missed-in-an-image", "coco_truth.py", 'and not annotation.get("iscrowd", 0)', "",
         "test_per_image"),
        ("unsure-detection-counted", "coco_engine.py", "found.scores >= confidence",
         "found.scores >= 0", "test_per_image"),
        # ---- Boundary AP
        ("boundary-band-too-wide", "boundary_precision.py", "width = max(1, round(",
         "width = 1 + max(1, round(", "test_instance"),
        ("boundary-crowd-counted", "boundary_precision.py",
         "_outside_area_ranges(truth.areas) | truth.crowd", "_outside_area_ranges(truth.areas)",
         "test_instance"),
        ("boundary-limit-off-by-one", "boundary_precision.py", 'of_class["rank"] < limit',
         'of_class["rank"] <= limit', "test_instance"),
        ("boundary-ties-reversed", "boundary_precision.py", 'np.lexsort((records["position"],',
         'np.lexsort((-records["position"].astype(int),', "test_instance"),
        # ---- LVIS
        ("lvis-limit-dropped", "lvis.py", '[: self._limit]', "", "test_lvis"),
        ("lvis-rarity-swapped", "lvis.py", 'precision[:, :, rarity == f, 0]) for f in "rcf"',
         'precision[:, :, rarity != f, 0]) for f in "rcf"', "test_lvis"),
        ("lvis-not-exhaustive-dropped", "lvis_truth.py",
         '"not_exhaustive_category_ids": sorted(image.incomplete)',
         '"not_exhaustive_category_ids": []', "test_lvis"),
        ("lvis-absent-not-judged", "lvis_truth.py",
         'judged=frozenset(categories) | frozenset(record.get("neg_category_ids", ())),',
         "judged=frozenset(categories),", "test_lvis"),
        # ---- label maps
        ("ignored-truth-counted", "confusion.py", """present = truth > 0
""", """predicted = confusion[:, :-1].sum(axis=0).astype(float)
    present = truth > 0
""", "test_semantic"),
        ("false-class-left-out", "confusion.py", '"mIoU": divide(iou[present].sum(), seen.sum())',
         '"mIoU": divide(iou[present].sum(), present.sum())', "test_semantic"),
        ("recall-is-precision", "confusion.py",
         "return iou, divide(hits, truth), divide(hits, predicted)",
         "return iou, divide(hits, predicted), divide(hits, truth)", "test_semantic"),
        ("semantic-ids-unmapped", "semantic.py", "self._dataset_ids.get(label, label)", "label",
         "test_semantic"),
        ("band-one-pixel-wider", "boundary.py", "max(1, round(self.dilation_ratio * diagonal))",
         "1 + max(1, round(self.dilation_ratio * diagonal))", "test_boundary"),
        ("void-is-an-edge",
            "boundary.py",
            "cv2.erode(np.where(empty, void, labels)",
            "cv2.erode(np.where(empty, 0, labels)",
            "test_boundary"),
        ("dice-without-its-two", "volume.py", "divide(2 * counts[:, 0]", "divide(counts[:, 0]",
         "test_volume"),
        # ---- panoptic segments
        ("pq-match-at-half", "panoptic_quality.py", "if iou > 0.5:", "if iou >= 0.5:",
         "test_panoptic"),
        ("pq-void-in-the-union", "panoptic_quality.py", " - count - void)", " - count)",
         "test_panoptic"),
        ("pq-void-excuses-nothing", "panoptic_quality.py",
         "excused = shared.get((VOID, found), 0)", "excused = 0", "test_panoptic"),
        ("pq-crowd-excuses-nothing", "panoptic_quality.py",
         "excused += shared.get((crowd_of_category[category], found), 0)", "excused += 0",
         "test_panoptic"),
        ("pq-crowd-missed", "panoptic_quality.py", "elif truth not in matched_truth:",
         "if truth not in matched_truth:", "test_panoptic"),
        ("pq-half-excused-is-a-mistake", "panoptic_quality.py",
         "excused / found_areas[found] <= 0.5", "excused / found_areas[found] <= 0.6",
         "test_panoptic"),
        ("rq-and-sq-mixed", "panoptic_quality.py",
         "divide(overlap, seen), sq, divide(self.tp, seen)",
         "divide(overlap, seen), divide(self.tp, seen), sq", "test_panoptic"),
        ("things-and-stuff-mixed", "panoptic.py", '("_th", things), ("_st", ~things)',
         '("_st", things), ("_th", ~things)', "test_panoptic"),
        # ---- Cityscapes
        ("small-truth-counted", "cityscapes_instance.py", "MIN_REGION_SIZE = 100",
         "MIN_REGION_SIZE = 0", "test_cityscapes"),
        ("group-counted", "cityscapes_instance.py", "counted = ~group & ~small", "counted = ~small",
         "test_cityscapes"),
        ("void-no-excuse", "cityscapes_instance.py",
         "ignored = void + shared[:, group].sum(axis=1)", "ignored = shared[:, group].sum(axis=1)",
         "test_cityscapes"),
        ("iiou-without-weights", "cityscapes_semantic.py",
         "official.avgClassSize[label.name] / float(pixels)", "1.0", "test_cityscapes"),
        ("train-ids-written", "cityscapes_semantic.py", "id_of_train_id()[labels]",
         "labels.astype(np.uint8)", "test_cityscapes"),
        # ---- membranes, visits, files
        ("em-threshold-from-0.2", "electron_microscopy.py", "np.arange(0.1, 0.95, 0.1)",
         "np.arange(0.2, 0.95, 0.1)", "test_electron_microscopy"),
        ("missing-image-unnoticed", "streaming.py", "if not missing.size:", "if True:",
         "test_semantic"),
        ("second-prediction-counted", "streaming.py", "if self._visits[position]:", "if False:",
         "test_semantic"),
        ("file-corners-for-sides", "instance_predictions.py",
         "return instances.pred_boxes.stated\n",
         "corners = instances.pred_boxes.tensor.numpy()\n"
         "        return np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])\n",
         "test_files"),
        ("file-void-is-class-0", "file_outputs.py", "classes, dataset.ignore_label)", "classes, 0)",
         "test_files"),
    )
]  # fmt: skip
NAMES = [mutation.name for mutation in MUTATIONS]


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from changed source."""

    def __init__(self, mutation: Mutation) -> None:
        stem = mutation.file.removesuffix(".py").replace("/", ".")
        self._module, self._source = f"seg_plugins.evaluation.{stem}", mutation.source()
        self._path = str(EVALUATION / mutation.file)

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != self._module:
            return None
        return importlib.machinery.ModuleSpec(name, self, origin=self._path)

    def exec_module(self, module: Any) -> None:
        module.__file__ = self._path
        exec(compile(self._source, self._path, "exec"), module.__dict__)


class _FirstFailure:
    """A plugin of pytest that notes the first test whose call fails."""

    test = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" and report.failed and not self.test:
            self.test = report.nodeid


def _tests(mutation: Mutation | None, tests: Sequence[str], pipe: Any) -> None:
    """In a process of its own: run tests with a fault; sends (status of pytest, first failure)."""
    if mutation is not None:
        sys.meta_path.insert(0, _Finder(mutation))
    import pytest

    noted = _FirstFailure()
    files = [f"tests/evaluation/{name}.py" for name in tests]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        arguments = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore", *files]
        status = int(pytest.main(arguments, plugins=[noted]))
    pipe.send((status, noted.test))


def run(mutation: Mutation | None, tests: Sequence[str]) -> tuple[int, str]:
    """Status of pytest, and the test that noticed a fault; "" where none did."""
    # Forked: what takes long to import is there already; this package is not.
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_tests, args=(mutation, tests, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        return 1, f"the process ended with status {process.exitcode}"
    finally:
        process.join()


def _warm() -> None:
    """Import what is none of this package's, once for all processes."""
    import cv2  # noqa: F401
    import hotcoco  # noqa: F401
    import pytest  # noqa: F401
    import torch
    import torchvision  # noqa: F401

    torch.set_num_threads(1)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutations", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME", help="all unless given")
    parser.add_argument("--list", action="store_true", help="print the names alone")
    parser.add_argument("--no-baseline", action="store_true", help="the tests are known to pass")
    args = parser.parse_args()
    unknown = set(args.names) - set(NAMES)
    if unknown:
        parser.error(f"no fault is called {', '.join(sorted(unknown))}; see --list")
    if args.list:
        print(*NAMES, sep="\n")
        return 0
    chosen = [m for m in MUTATIONS if m.name in (args.names or NAMES)]
    try:
        for mutation in chosen:
            mutation.source()
    except ValueError as error:  # else the process that plants it ends, as if a test had failed
        parser.error(str(error))
    os.chdir(ROOT)
    _warm()
    if not args.no_baseline:
        status, test = run(None, sorted({m.tests for m in chosen}))
        if status:
            print(f"The tests fail without a fault: {test or f'pytest ended with {status}'}")
            return 1
    return _table(chosen)


def _table(chosen: Sequence[Mutation]) -> int:
    print("| fault | in | caught by | seconds |\n|---|---|---|---|", flush=True)
    survived = []
    for mutation in chosen:
        begin = time.monotonic()
        _, test = run(mutation, [mutation.tests])
        if not test:
            survived.append(mutation.name)
        shown = f"`{test.removeprefix('tests/evaluation/')}`" if test else "**nothing**"
        seconds = round(time.monotonic() - begin)
        print(f"| {mutation.name} | {mutation.file} | {shown} | {seconds} |", flush=True)
    print(f"\n{len(chosen) - len(survived)} of {len(chosen)} faults are caught.")
    if survived:
        print(f"Survived: {', '.join(survived)}")
    return int(bool(survived))


if __name__ == "__main__":
    sys.exit(main())
