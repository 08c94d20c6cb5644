"""Semantic segmentation against Detectron2's SemSegEvaluator, and memory over many images."""

from __future__ import annotations

import importlib
import os
import resource
from pathlib import Path

from seg_plugins.evaluation import SemanticEvaluator
from seg_plugins.evaluation.cityscapes_files import EVALUATED
from seg_plugins.ops.segmentation_metrics import label_confusion

import hotcoco.semantic
import numpy as np
import torch
from detectron2.evaluation import SemSegEvaluator
from PIL import Image
from timing import medians

from .measuring import CITYSCAPES, once, register, report, same, smooth_scores


def truth_of(rng: np.random.Generator, scores: np.ndarray) -> np.ndarray:
    """Labels near the argmax, with an ignored border."""
    labels = np.roll(scores.argmax(axis=0), 9, axis=(0, 1)).astype(np.uint8)
    labels[-40:] = 255
    return labels


def semantic(folder: Path, repeats: int) -> None:
    rng = np.random.default_rng(0)
    scores = smooth_scores(rng, 19, CITYSCAPES)
    Image.fromarray(truth_of(rng, scores)).save(folder / "truth.png")
    record = {"file_name": "image", "sem_seg_file_name": str(folder / "truth.png")}
    classes = [label.name for label in EVALUATED]
    register("semantic", [record], stuff_classes=classes, ignore_label=255)
    output = {"sem_seg": torch.from_numpy(scores)}
    peer = SemSegEvaluator("semantic", distributed=False)
    plain = SemanticEvaluator("semantic")
    saving = SemanticEvaluator("semantic", folder / "out", save_predictions=True)
    runs = {
        "Detectron2 SemSegEvaluator": once(peer, record, output),
        "SemanticEvaluator": once(plain, record, output),
        "SemanticEvaluator, RLE to disk": once(saving, record, output),
    }
    times = medians(runs, repeats)
    theirs, ours = peer.evaluate()["sem_seg"], plain.evaluate()["sem_seg"]
    for key, value in theirs.items():
        same(key, ours[key], value)
    report("process 1024x2048, 19 classes, CPU scores", "Detectron2 SemSegEvaluator", times)
    _counting(scores.argmax(axis=0).astype(np.uint8), truth_of(rng, scores), len(classes), repeats)


def _counting(labels: np.ndarray, truth: np.ndarray, classes: int, repeats: int) -> None:
    """The confusion of two label maps alone, in memory, against the libraries that count it."""

    def ours() -> np.ndarray:
        return label_confusion(labels, truth, classes, 255)[:classes, :classes]

    def by_hotcoco() -> np.ndarray:
        run = hotcoco.semantic.SemanticEval(classes, ignore_index=255)
        run.update(truth, labels)
        return run.confusion()

    def by_vernier() -> np.ndarray:
        known = vernier.Dataset.from_arrays({0: truth}, classes, 255)
        run = vernier.Evaluator(parity_mode="strict")
        found = run.evaluate(known, vernier.Predictions.from_arrays({0: labels}))
        return found.confusion_matrix.counts().reshape(classes, classes)

    libraries = {"hotcoco": by_hotcoco}
    try:
        vernier = importlib.import_module("vernier.semantic")
        libraries["vernier"] = by_vernier
    except ImportError as error:
        print(f"vernier cannot be imported: {error}")
    for name, count in libraries.items():
        times = medians({name: count, "label_confusion": ours}, repeats)
        if not np.array_equal(count(), ours()):
            raise SystemExit(f"{name}: another confusion matrix of the same label maps")
        report("confusion of two label maps 1024x2048, 19 classes", name, times)


def memory(folder: Path, repeats: int, images: int) -> None:
    truth = np.zeros((64, 64), np.uint8)
    records = [{"file_name": str(i), "sem_seg_file_name": str(i)} for i in range(images)]
    register(
        "memory",
        records,
        stuff_classes=["a", "b"],
        ignore_label=255,
        sem_seg_loading_fn=lambda path: truth,
    )
    evaluator = SemanticEvaluator("memory", folder / "out", save_predictions=True)
    output = {"sem_seg": torch.rand(2, 64, 64)}
    marks = {}
    for i, record in enumerate(records):
        evaluator.process([record], [output])
        if i + 1 in (images // 10, images):
            marks[i + 1] = _resident()
    evaluator.evaluate()
    marks[images + 1] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    tenth, end, peak = marks.values()
    print(
        f"| {images} images, RLE to disk | | | resident after a tenth {tenth:.0f} MiB, after all "
        f"{end:.0f} MiB, peak with evaluate {peak:.0f} MiB | | |"
    )


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
