#!/usr/bin/env python
"""AP of a trained instance system on rasters: predicted whole, and by windows.

python tools/window_accuracy.py output/instance/cond_inst/seed_1
python tools/window_accuracy.py RUN --window 256 --overlap 96 --margin 16 --side 4

The images of the run's test set, all of one size, are laid out as rasters of SIDE x SIDE of them,
as many as they fill; both ways show them to the network at their own resolution.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import seg_plugins  # first
from seg_plugins.data import Dataset
from seg_plugins.data.datasets.custom import register_custom_dataset
from seg_plugins.evaluation import score_files
from seg_plugins.io.images import read_image
from seg_plugins.io.masks import encode_bitmasks, mask_area, mask_box, to_bitmask
from seg_plugins.prediction import Predictor
from seg_plugins.prediction.inputs import find_sources
from seg_plugins.prediction.outputs import OutputOptions
from seg_plugins.prediction.run import RunOptions, grid_for, run

import numpy as np
import tifffile
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", type=Path, help="folder of a training run")
    add("--side", type=int, default=4, help="images along a raster's side (default: 4)")
    add("--window", type=int, default=256, help="default: 256")
    add("--overlap", type=int, default=96, help="default: 96")
    add("--margin", type=int, default=16, help="default: 16")
    add("--min-score", type=float, default=0.05, help="of instances (default: 0.05)")
    args = parser.parse_args()
    opts = ["INPUT.MIN_SIZE_TEST", "0", "TEST.DETECTIONS_PER_IMAGE", "200", "MODEL.DEVICE", "cpu"]
    cfg = seg_plugins.load_config(args.run / "config.yaml", opts)
    predictor = Predictor.from_config(
        cfg, args.run / "model_final.pth", min_score=args.min_score, batch_size=1
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        count = write_rasters(Dataset.get(cfg.DATASETS.TEST[0]), args.side, folder)
        name = register_custom_dataset(str(folder / "rasters.yaml"))["val"]
        sources = find_sources([str(folder / "images")], folder / "out")
        grid = grid_for(predictor.model, args.window, args.overlap, args.margin)
        left = len(Dataset.get(cfg.DATASETS.TEST[0]).records) - len(sources) * args.side**2
        print(
            f"{len(sources)} rasters of {args.side} x {args.side} images, {count} objects; "
            f"{left} images do not fill another one and are left out"
        )
        for title, pixels in (("whole", 1 << 40), ("windows", 0)):
            options = RunOptions(OutputOptions(("json",)), grid, window_pixels=pixels)
            summary = run(predictor, sources, folder / title, options)
            if summary.failed:
                raise SystemExit(f"error: {summary.failed[0]}")
            predictions = results_of(folder / title, folder)
            scores = score(cfg, name, predictions)
            found = ", ".join(f"{key} {scores[key]:.2f}" for key in ("AP", "AP50", "AP75"))
            print(f"{title:<8} {found}, AR@200 {scores['AR@200']:.2f}", flush=True)


def write_rasters(dataset: Dataset, side: int, folder: Path) -> int:
    """Rasters, their COCO JSON and its description; the number of objects."""
    records = dataset.records
    height, width = records[0]["height"], records[0]["width"]
    shape = side * height, side * width
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    (folder / "images").mkdir()
    for start in range(0, len(records) - side * side + 1, side * side):
        raster, number = np.zeros((*shape, 3), np.uint8), len(images) + 1
        for place, record in enumerate(records[start : start + side * side]):
            y, x = height * (place // side), width * (place % side)
            raster[y : y + height, x : x + width] = read_image(record["file_name"], "RGB")
            for one in record["annotations"]:
                mask = np.zeros(shape, np.uint8)
                part = to_bitmask(one["segmentation"], height, width)
                mask[y : y + height, x : x + width] = part
                [packed] = encode_bitmasks(mask[None])
                objects.append(
                    {
                        "id": len(objects) + 1,
                        "image_id": number,
                        "category_id": one["category_id"] + 1,
                        "segmentation": {**packed, "counts": packed["counts"].decode()},
                        "area": mask_area(packed),
                        "bbox": list(map(float, mask_box(packed))),
                        "iscrowd": 0,
                    }
                )
        tifffile.imwrite(folder / "images" / f"{number}.tif", raster, photometric="rgb")
        images.append(
            {"id": number, "file_name": f"{number}.tif", "height": shape[0], "width": shape[1]}
        )
    names = MetadataCatalog.get(dataset.name).thing_classes
    categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    content = {"images": images, "annotations": objects, "categories": categories}
    (folder / "truth.json").write_text(json.dumps(content))
    part = "{images: images, json: truth.json}"
    (folder / "rasters.yaml").write_text(
        f"name: rasters\ntask: instance\nroot: {folder}\ntrain: {part}\nval: {part}\n"
    )
    return len(objects)


def results_of(out: Path, folder: Path) -> Path:
    """COCO's results of a folder of predictions, with the ids of the rasters' file."""
    found = json.loads((out / "instances.json").read_text())
    truth = json.loads((folder / "truth.json").read_text())
    ids = {one["name"]: one["id"] for one in truth["categories"]}
    categories = {one["id"]: ids[one["name"]] for one in found["categories"]}
    images = {one["id"]: int(Path(one["file_name"]).stem) for one in found["images"]}
    for one in found["annotations"]:
        one["image_id"] = images[one["image_id"]]
        one["category_id"] = categories[one["category_id"]]
    path = out / "results.json"
    path.write_text(json.dumps(found["annotations"]))
    return path


def score(cfg: CfgNode, name: str, predictions: Path) -> dict[str, float]:
    """Scores of masks."""
    return score_files(name, predictions, cfg=cfg)["segm"]


if __name__ == "__main__":
    main()
