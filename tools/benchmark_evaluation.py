"""Evaluators against the peers: same input, same digits (checked in the run), medians and ratios.

    python tools/benchmark_evaluation.py                # every row
    python tools/benchmark_evaluation.py semantic pq    # some
    python tools/benchmark_evaluation.py memory --images 100000

Peer and evaluator run in turn in this process. Peers that cannot be imported are named.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.util
import io
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import seg_plugins  # noqa: F401 - repairs Detectron2 before it is imported
from seg_plugins.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemanticEvaluator,
    InstanceEvaluator,
    PanopticEvaluator,
    SemanticEvaluator,
)
from seg_plugins.evaluation.cityscapes_files import EVALUATED
from seg_plugins.evaluation.cityscapes_instance import write_official_instances
from seg_plugins.evaluation.cityscapes_official import (
    official_instance_scores,
    official_semantic_scores,
)
from seg_plugins.evaluation.panoptic import write_panoptic_png
from seg_plugins.evaluation.streaming import StreamingEvaluator

import cv2
import numpy as np
import pycocotools.mask as coco_mask
import torch
from cityscapesscripts.evaluation import evalPanopticSemanticLabeling as pq_reference
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from detectron2.structures import Boxes, Instances
from PIL import Image

CITYSCAPES = (1024, 2048)
FRAME = "aachen_000000_000019"
THINGS = [label.name for label in EVALUATED if label.hasInstances]


def in_turn(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each function, called one after the other `repeats` times."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, function in runs.items():
            start = time.perf_counter()
            function()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def report(work: str, peer: str, times: dict[str, float]) -> None:
    """One line per evaluator: milliseconds of peer and evaluator, and peer / evaluator."""
    for name, value in times.items():
        if name != peer:
            ratio = times[peer] / value
            print(f"| {work} | {peer} | {times[peer]:.1f} | {name} | {value:.1f} | {ratio:.1f} |")


def smooth_scores(rng: np.random.Generator, classes: int, shape: tuple[int, int]) -> np.ndarray:
    """(K, H, W) float32 scores whose argmax has regions like those of a street scene."""
    coarse = rng.normal(size=(classes, shape[0] // 43, shape[1] // 43)).astype(np.float32)
    size = shape[::-1]
    return np.stack([cv2.resize(x, size, interpolation=cv2.INTER_CUBIC) for x in coarse])


def truth_of(rng: np.random.Generator, scores: np.ndarray) -> np.ndarray:
    """Labels near the argmax, with an ignored border."""
    labels = np.roll(scores.argmax(axis=0), 9, axis=(0, 1)).astype(np.uint8)
    labels[-40:] = 255
    return labels


def same(name: str, ours: float, theirs: float) -> None:
    if not np.isclose(ours, theirs, rtol=1e-12, atol=1e-12, equal_nan=True):
        raise SystemExit(f"{name}: {ours} here, {theirs} there: not the same digits")


def register(name: str, records: list[dict[str, Any]], **metadata: Any) -> None:
    for catalogue in (DatasetCatalog, MetadataCatalog):
        if name in catalogue.list():
            catalogue.remove(name)
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(**metadata)


def once(evaluator: Any, given: dict[str, Any], output: dict[str, Any]) -> Callable[[], None]:
    """A run of `process` on one image from a fresh state."""

    def run() -> None:
        if isinstance(evaluator, StreamingEvaluator):
            evaluator._visits[:] = 0  # the same image again
        evaluator.process([given], [output])

    evaluator.reset()
    return run


# ------------------------------------------------------------------------------------- rows


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
    times = in_turn(runs, repeats)
    theirs, ours = peer.evaluate()["sem_seg"], plain.evaluate()["sem_seg"]
    for key, value in theirs.items():
        same(key, ours[key], value)
    report("process 1024x2048, 19 classes, CPU scores", "Detectron2 SemSegEvaluator", times)


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

        times = in_turn({peer: official, "CityscapesSemanticEvaluator": run}, repeats)
        expected, found = official(), ours.evaluate()["sem_seg"]
        same("IoU", found["IoU"], 100 * expected["averageScoreClasses"])
        if instances:
            same("iIoU", found["iIoU"], 100 * expected["averageScoreInstClasses"])
        report("Cityscapes pixel scores, one frame, truth read from PNG", peer, times)
        # The same without decoding any file, on both sides.
        opened = {str(f): np.array(Image.open(f)) for f in split.glob("*/*.png")}
        opened |= {str(f): np.array(Image.open(f)) for f in predictions.glob("*.png")}
        with _decoded(opened):
            times = in_turn({peer: official, "CityscapesSemanticEvaluator": run}, repeats)
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
    reader = cityscapes_semantic.read_label_image
    for module, _ in saved:
        module.Image = Opener
    for own in (cityscapes_semantic, cityscapes_instance):
        own.read_label_image = lambda path: images[str(path)]
    try:
        yield
    finally:
        for module, image in saved:
            module.Image = image
        for own in (cityscapes_semantic, cityscapes_instance):
            own.read_label_image = reader


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
    times = in_turn(runs, max(3, repeats // 3))
    expected, found = official(), ours.evaluate()["segm"]
    same("AP", found["AP"], 100 * expected["allAp"])
    writing = times.pop("write")
    work = f"Cityscapes instances, {len(masks)} predictions, 50 truths"
    report(f"{work}, scoring alone", "cityscapesscripts", times)
    times["cityscapesscripts"] += writing
    report(f"{work}, with writing the masks", "cityscapesscripts", times)


def cells(rng: np.random.Generator, count: int, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) int32 map of `count` segments: the pixels nearest to random points."""
    seeds = np.ones(shape, np.uint8)
    seeds[tuple(rng.integers(side, size=count) for side in shape)] = 0
    _, nearest = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    return nearest.astype(np.int32) * 700 + 1


def segments_of(ids: np.ndarray) -> list[dict[str, Any]]:
    """COCO segments_info of an id map, categories 1..11 by id."""
    values, areas = (x.tolist() for x in np.unique(ids, return_counts=True))
    return [
        {"id": v, "category_id": v // 700 % 11 + 1, "iscrowd": 0, "area": n}
        for v, n in zip(values, areas, strict=True)
    ]


def pq(folder: Path, repeats: int) -> None:
    if importlib.util.find_spec("panopticapi") is None:
        print("panopticapi cannot be imported; its pq_compute as shipped in cityscapesscripts:")
    for shape, count in (((480, 640), 20), (CITYSCAPES, 80)):
        pq_of_size(folder, repeats, shape, count)


def pq_of_size(folder: Path, repeats: int, shape: tuple[int, int], count: int) -> None:
    categories = {i: {"id": i, "name": f"c{i}", "isthing": i % 2} for i in range(1, 12)}
    truth = cells(np.random.default_rng(4), count, shape)
    found = np.roll(truth, 5, axis=(0, 1))
    write_panoptic_png(folder / "truth" / "0.png", truth)
    annotation = {"image_id": 0, "file_name": "0.png", "segments_info": segments_of(truth)}
    file = folder / "panoptic.json"
    content = {"categories": list(categories.values()), "annotations": [annotation]}
    file.write_text(json.dumps(content))
    roots = [str(folder / "truth"), str(folder / "found")]
    register("pq", [], panoptic_json=str(file), panoptic_root=roots[0])
    ours = PanopticEvaluator("pq")
    predicted = segments_of(found)
    output = {"panoptic_seg": (torch.from_numpy(found), predicted)}
    stats = []

    def reference() -> None:
        write_panoptic_png(folder / "found" / "0.png", found)
        pairs = [(annotation, {**annotation, "segments_info": copy.deepcopy(predicted)})]
        with contextlib.redirect_stdout(io.StringIO()):
            stats.append(pq_reference.pq_compute_single_core(0, pairs, *roots, categories))

    peer = "PNG + pq_compute_single_core"
    runs = {peer: reference, "PanopticEvaluator": once(ours, {"image_id": 0}, output)}
    times = in_turn(runs, repeats)
    expected, _ = stats[-1].pq_average(categories, None)
    same("PQ", ours.evaluate()["panoptic_seg"]["PQ"], 100 * expected["pq"])
    report(f"PQ, {shape[1]}x{shape[0]}, {count} segments", peer, times)


def coco_scene(images: int, detections: int) -> tuple[dict[str, Any], list, list]:
    """COCO-sized images with polygons, and detections near them; COCO dict, results, outputs."""
    rng = np.random.default_rng(5)
    height, width, categories = 480, 640, 80
    content: dict[str, Any] = {
        "info": {},
        "images": [{"id": i + 1, "height": height, "width": width} for i in range(images)],
        "categories": [{"id": c + 1, "name": f"c{c}"} for c in range(categories)],
        "annotations": [],
    }
    results, outputs = [], []
    for image in content["images"]:
        shapes = []
        for _ in range(7):
            centre = rng.uniform([60, 60], [width - 60, height - 60])
            angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
            radius = rng.uniform(12, 120) * rng.uniform(0.7, 1.0, 24)
            points = centre + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            points = np.clip(points, 0, [width - 1, height - 1])
            category = int(rng.integers(categories)) + 1
            shapes.append((points, category))
            rle = coco_mask.merge(
                coco_mask.frPyObjects([points.reshape(-1).tolist()], height, width)
            )
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": coco_mask.toBbox(rle).tolist(),
                    "area": float(coco_mask.area(rle)),
                    "iscrowd": 0,
                    "segmentation": [points.reshape(-1).tolist()],
                }
            )
        instances = Instances((height, width))
        boxes, scores, classes, masks = [], [], [], []
        for d in range(detections):
            points, category = shapes[d % 7]
            points = points + rng.normal(0, 6, 2) + rng.normal(0, 2, points.shape)
            points = np.clip(points, 0, [width - 1, height - 1])
            rle = coco_mask.merge(
                coco_mask.frPyObjects([points.reshape(-1).tolist()], height, width)
            )
            x, y, w, h = coco_mask.toBbox(rle).tolist()
            boxes.append([x, y, x + w, y + h])
            scores.append(float(np.float32(rng.random())))
            classes.append(category - 1 if rng.random() < 0.7 else int(rng.integers(categories)))
            masks.append(rle)
            results.append(
                {
                    "image_id": image["id"],
                    "category_id": classes[-1] + 1,
                    "bbox": [x, y, w, h],
                    "score": scores[-1],
                    "segmentation": rle,
                }
            )
        instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        instances.scores = torch.tensor(scores)
        instances.pred_classes = torch.tensor(classes)
        instances.pred_masks = masks
        outputs.append({"instances": instances})
    return content, results, outputs


def coco(folder: Path, repeats: int) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    content, results, outputs = coco_scene(500, 100)
    file = folder / "instances.json"
    file.write_text(json.dumps(content))
    ids = {c["id"]: i for i, c in enumerate(content["categories"])}
    register("coco", [], json_file=str(file), thing_dataset_id_to_contiguous_id=ids)
    with_masks, boxes_alone = InstanceEvaluator("coco"), InstanceEvaluator("coco")
    inputs = [{"image_id": image["id"]} for image in content["images"]]
    without = []
    for output in outputs:
        instances = copy.copy(output["instances"])
        instances._fields = {k: v for k, v in instances._fields.items() if k != "pred_masks"}
        without.append({"instances": instances})

    def ours(evaluator: InstanceEvaluator, predicted: list) -> dict[str, dict[str, float]]:
        evaluator.reset()
        for given, output in zip(inputs, predicted, strict=True):
            evaluator.process([given], [output])
        return evaluator.evaluate()

    def official(task: str, load: Callable, evaluation_class: type) -> np.ndarray:
        with contextlib.redirect_stdout(io.StringIO()):
            truth = load(str(file))
            found = copy.deepcopy(results)
            for result in found:
                if task == "segm":
                    del result["bbox"]
                else:
                    del result["segmentation"]
            found = truth.loadRes(found)
            start = time.perf_counter()
            evaluation = evaluation_class(truth, found, task)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        seconds.setdefault((task, evaluation_class.__name__), []).append(
            time.perf_counter() - start
        )
        return np.asarray(evaluation.stats)

    seconds: dict[tuple[str, str], list[float]] = {}
    peers: list[tuple[Callable, type]] = [(COCO, COCOeval)]
    if importlib.util.find_spec("faster_coco_eval"):
        from faster_coco_eval import COCO as FasterCOCO
        from faster_coco_eval import COCOeval_faster

        peers.append((FasterCOCO, COCOeval_faster))
    else:
        print("faster-coco-eval cannot be imported.")
    own: dict[str, list[float]] = {"bbox": [], "segm": []}
    for _ in range(max(3, repeats // 3)):
        stats = {(t, e.__name__): official(t, c, e) for t in own for c, e in peers}
        start = time.perf_counter()
        found = ours(with_masks, outputs)
        middle = time.perf_counter()
        ours(boxes_alone, without)
        own["segm"].append(middle - start)
        own["bbox"].append(time.perf_counter() - middle)
    for task in own:
        names = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR@1", "AR@10", "AR@100"]
        names += ["ARs@100", "ARm@100", "ARl@100"]
        for name, value in zip(names, stats[task, "COCOeval"], strict=True):
            same(f"{task} {name}", found[task][name], 100 * value if value >= 0 else np.nan)
        what = "process + evaluate, boxes alone" if task == "bbox" else "boxes and masks together"
        for _, evaluation_class in peers:
            peer = evaluation_class.__name__
            mine, theirs = (1e3 * statistics.median(x) for x in (own[task], seconds[task, peer]))
            report(
                f"COCO {task}, 500 images x 100 detections",
                peer,
                {peer: theirs, f"InstanceEvaluator, {what}": mine},
            )


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


ROWS: dict[str, Callable[[Path, int], None]] = {
    "semantic": semantic,
    "cityscapes_pixels": cityscapes_pixels,
    "cityscapes_instances": cityscapes_instances,
    "pq": pq,
    "coco": coco,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", choices=["memory", *ROWS, []], help="all unless named")
    parser.add_argument("--repeats", type=int, default=9, help="runs per figure (default 9)")
    parser.add_argument("--images", type=int, default=100_000, help="images of the memory row")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{torch.get_num_threads()} threads, load {load:.1f}, PyTorch {torch.__version__}")
    print(f"medians of {arguments.repeats} runs in ms\n")
    print("| work | peer | peer ms | here | ms | ratio |\n|---|---|---|---|---|---|")
    # Memory first: what other rows leave behind would hide it.
    for row in arguments.rows or ["memory", *ROWS]:
        with tempfile.TemporaryDirectory() as scratch:
            if row == "memory":
                memory(Path(scratch), arguments.repeats, arguments.images)
            else:
                ROWS[row](Path(scratch), arguments.repeats)


if __name__ == "__main__":
    main()
