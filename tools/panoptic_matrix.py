#!/usr/bin/env python
"""Train the panoptic systems on the embedded dataset and print them side by side.

python tools/panoptic_matrix.py --output output/panoptic
python tools/panoptic_matrix.py --output output/panoptic --heads fcn unet -- SOLVER.MAX_ITER 3000

Each is configs/shapes/panoptic_HEAD.yaml, trained by tools/train_net.py into OUTPUT/HEAD; a run
that is there already is only read. solo_v2 and adaptis are one-stage systems, the others semantic
heads. Prints one row per run: panoptic quality (all, things, stuff), mIoU, AP of boxes and masks,
training time, time per image of the evaluation, and the largest memory of the training process.
Writes OUTPUT/matrix.md, and OUTPUT/pictures.png: image, ground truth, then the segments that each
finds, with their ids.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from seg_plugins.data import Dataset, build_mapper
from seg_plugins.io.images import read_image
from seg_plugins.io.panoptic import read_segment_ids
from seg_plugins.visualization import overlays
from seg_plugins.visualization.segments import panoptic

import cv2
import numpy as np
import run_matrix
import torch
from detectron2.config import CfgNode
from torch import nn

HEADS = (
    *("sem_seg_fpn", "fcn", "unet", "segnet", "deeplabv3plus", "bottom_up"),
    *("solo_v2", "adaptis"),
)
COLUMNS = {
    "PQ": "panoptic_seg/PQ",
    "PQ things": "panoptic_seg/PQ_th",
    "PQ stuff": "panoptic_seg/PQ_st",
    "SQ": "panoptic_seg/SQ",
    "RQ": "panoptic_seg/RQ",
    "mIoU": "sem_seg/mIoU",
    "box AP": "bbox/AP",
    "mask AP": "segm/AP",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder of the runs")
    add("--heads", nargs="*", choices=HEADS, default=HEADS, help="default: all")
    add("--pictures", type=int, default=6, help="images drawn (default: 6)")
    add("opts", nargs="*", help="after --: KEY VALUE, as of train_net.py")
    args = parser.parse_args()
    for head in args.heads:
        run_matrix.train(f"shapes/panoptic_{head}.yaml", args.output / head, args.opts)
    runs = {head: args.output / head for head in args.heads}
    header = ["head", *COLUMNS, "parameters", "iterations", "training", "ms/image", "memory"]
    table = run_matrix.markdown([header, *(row(head, run) for head, run in runs.items())])
    (args.output / "matrix.md").write_text(table)
    print(table)
    if args.pictures:
        path = args.output / "pictures.png"
        draw(runs, args.pictures, path)
        print(f"Pictures (image | ground truth | {' | '.join(runs)}): {path}")


def row(head: str, run: Path) -> list[str]:
    """The figures of one run, all from its files."""
    record, results = run_matrix.record(run), run_matrix.results(run)
    seconds = run_matrix.seconds_by_image(run)
    return [
        head,
        *(f"{results[key]:.1f}" if key in results else "-" for key in COLUMNS.values()),
        f"{record['parameters'] / 1e6:.1f} M",
        f"{record['iterations']} x {record['batch']}",
        f"{record['seconds'] / 60:.1f} min",
        run_matrix.or_dash(seconds and 1e3 * seconds, "{:.0f}"),
        run_matrix.or_dash(run_matrix.memory(run), "{:.1f} GiB"),
    ]


def draw(runs: dict[str, Path], count: int, path: Path) -> None:
    """One row per image of the test set, one column per run."""
    loaded = [run_matrix.load(run) for run in runs.values()]
    name = loaded[0][0].DATASETS.TEST[0]
    dataset = Dataset.get(name)
    records = dataset.records
    chosen = [records[i] for i in np.linspace(0, len(records) - 1, count).astype(int)]
    colors = np.asarray(dataset.stuff.colors, np.uint8)
    images = [read_image(record["file_name"], "RGB") for record in chosen]
    columns: list[list[np.ndarray]] = [images]
    columns.append(
        [
            panoptic(
                image,
                read_segment_ids(record["pan_seg_file_name"]),
                record["segments_info"],
                colors,
                numbers=False,
            )
            for image, record in zip(images, chosen, strict=True)
        ]
    )
    for cfg, model in loaded:
        found = predict(cfg, model, chosen)
        columns.append(
            [
                panoptic(image, ids.cpu().numpy(), segments, colors)
                for image, (ids, segments) in zip(images, found, strict=True)
            ]
        )
    grid = overlays.grid([list(pictures) for pictures in zip(*columns, strict=True)], width=256)
    cv2.imwrite(str(path), grid[:, :, ::-1])


@torch.no_grad()
def predict(cfg: CfgNode, model: nn.Module, records: list[dict[str, Any]]) -> list[Any]:
    """``panoptic_seg`` of each record."""
    mapper = build_mapper(cfg, False)
    return [model([mapper(dict(record))])[0]["panoptic_seg"] for record in records]


if __name__ == "__main__":
    main()
