"""Cityscapes' pixel and instance scores against cityscapesscripts."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from seg_plugins.evaluation import CityscapesInstanceEvaluator, CityscapesSemanticEvaluator
from seg_plugins.evaluation.cityscapes_files import EVALUATED
from seg_plugins.evaluation.cityscapes_instance import write_official_instances
from seg_plugins.evaluation.cityscapes_official import (
    official_instance_scores,
    official_semantic_scores,
)

import numpy as np
import torch
from detectron2.structures import Instances
from PIL import Image
from timing import medians

from .measuring import CITYSCAPES, once, register, report, same, smooth_scores

FRAME = "aachen_000000_000019"
THINGS = [label.name for label in EVALUATED if label.hasInstances]


def street_truth(folder: Path) -> tuple[Path, np.ndarray]:
    """labelIds and instanceIds of one frame with 50 instances; gives the split and the ids."""
    rng = np.random.default_rng(1)
    labels = smooth_scores(rng, 19, CITYSCAPES).argmax(axis=0)
    ids = np.array([label.id for label in EVALUATED])[labels].astype(np.uint16)
    things = [label.id for label in EVALUATED if label.hasInstances]
    for number in range(50):
        y, x = rng.integers(CITYSCAPES[0] - 60), rng.integers(CITYSCAPES[1] - 60)
        height, width = rng.integers(20, 300, 2)
        ids[y : y + height, x : x + width] = rng.choice(things) * 1000 + number
    city = folder / "gtFine" / "val" / "aachen"
    city.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(city / f"{FRAME}_gtFine_instanceIds.png")
    label_ids = np.where(ids >= 1000, ids // 1000, ids).astype(np.uint8)
    Image.fromarray(label_ids).save(city / f"{FRAME}_gtFine_labelIds.png")
    return city.parent, ids


def cityscapes_pixels(folder: Path, repeats: int) -> None:
    split, _ = street_truth(folder)
    register("cityscapes_pixels", [], gt_dir=str(split))
    given = {"file_name": f"{FRAME}_leftImg8bit.png"}
    labels = smooth_scores(np.random.default_rng(2), 19, CITYSCAPES).argmax(axis=0)
    output = {"sem_seg": torch.from_numpy(labels.astype(np.uint8))}
    writer = CityscapesSemanticEvaluator("cityscapes_pixels", folder, save_predictions=True)
    once(writer, given, output)()
    predictions = folder / "cityscapes_sem_seg"
    for instances in (True, False):
        ours = CityscapesSemanticEvaluator("cityscapes_pixels", instance_scores=instances)
        peer = f"cityscapesscripts{'' if instances else ' without iIoU'}"
        run = once(ours, given, output)

        def official(instances: bool = instances) -> dict[str, Any]:
            return official_semantic_scores(predictions, split, instance_scores=instances)

        times = medians({peer: official, "CityscapesSemanticEvaluator": run}, repeats)
        expected, found = official(), ours.evaluate()["sem_seg"]
        same("IoU", found["IoU"], 100 * expected["averageScoreClasses"])
        if instances:
            same("iIoU", found["iIoU"], 100 * expected["averageScoreInstClasses"])
        report("Cityscapes pixel scores, one frame, truth read from PNG", peer, times)
        # The same without decoding any file, on both sides.
        opened = {str(f): np.array(Image.open(f)) for f in split.glob("*/*.png")}
        opened |= {str(f): np.array(Image.open(f)) for f in predictions.glob("*.png")}
        with _decoded(opened):
            times = medians({peer: official, "CityscapesSemanticEvaluator": run}, repeats)
        report("the same, files decoded beforehand", peer, times)


@contextlib.contextmanager
def _decoded(images: dict[str, np.ndarray]) -> Any:
    """`Image.open` in both implementations gives arrays from memory."""
    from seg_plugins.evaluation import cityscapes_instance, cityscapes_semantic

    from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as instance
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as pixel

    class Opened:
        def __init__(self, array: np.ndarray) -> None:
            self.array, self.size = array, array.shape[::-1]

        def convert(self, mode: str) -> Opened:
            return self

        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return self.array

    class Opener:
        @staticmethod
        def open(path: str) -> Opened:
            return Opened(images[str(path)])

    saved = [(module, module.Image) for module in (pixel, instance)]
    reader = cityscapes_semantic.read_label
    for module, _ in saved:
        module.Image = Opener
    for own in (cityscapes_semantic, cityscapes_instance):
        own.read_label = lambda path: images[str(path)]
    try:
        yield
    finally:
        for module, image in saved:
            module.Image = image
        for own in (cityscapes_semantic, cityscapes_instance):
            own.read_label = reader


def cityscapes_instances(folder: Path, repeats: int) -> None:
    split, ids = street_truth(folder)
    register("cityscapes_instances", [], gt_dir=str(split), thing_classes=THINGS)
    rng = np.random.default_rng(3)
    masks, labels = [], []
    for value in np.unique(ids[ids > 1000])[:50].tolist():
        for _ in range(2):
            shift = rng.integers(-6, 7, 2)
            masks.append(np.roll(ids == value, shift, axis=(0, 1)))
            name = next(label.name for label in EVALUATED if label.id == value // 1000)
            labels.append(THINGS.index(name))
    instances = Instances(CITYSCAPES)
    instances.pred_masks = torch.from_numpy(np.array(masks))
    instances.pred_classes = torch.tensor(labels)
    instances.scores = torch.from_numpy(rng.random(len(masks), np.float32))
    given = {"file_name": f"{FRAME}_leftImg8bit.png"}
    ours = CityscapesInstanceEvaluator("cityscapes_instances")
    run = once(ours, given, {"instances": instances})
    predictions = folder / "cityscapes_instances"
    scores = instances.scores.double().numpy()
    bitmasks = instances.pred_masks.numpy()

    def write() -> None:
        write_official_instances(predictions, FRAME, bitmasks, np.array(labels), scores)

    def official() -> dict[str, Any]:
        return official_instance_scores(predictions, split)

    write()
    runs = {
        "cityscapesscripts": official,
        "write": write,
        "CityscapesInstanceEvaluator": run,
    }
    times = medians(runs, max(3, repeats // 3))
    expected, found = official(), ours.evaluate()["segm"]
    same("AP", found["AP"], 100 * expected["allAp"])
    writing = times.pop("write")
    work = f"Cityscapes instances, {len(masks)} predictions, 50 truths"
    report(f"{work}, scoring alone", "cityscapesscripts", times)
    times["cityscapesscripts"] += writing
    report(f"{work}, with writing the masks", "cityscapesscripts", times)
