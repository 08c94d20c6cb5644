#!/usr/bin/env python
"""Train the systems of instance segmentation on one dataset and print them side by side.

python tools/instance_matrix.py --output output/instance
python tools/instance_matrix.py --output output/nuclei --dataset dsb2018 --systems polar_mask
python tools/instance_matrix.py --output output/instance --seeds 1 2 3 -- SOLVER.MAX_ITER 800

Each system is configs/DATASET/SYSTEM_r18.yaml, trained by tools/train_net.py into
OUTPUT/SYSTEM/seed_SEED; a run that is there already is only read. Prints a row for each system: AP
of masks and boxes (mean of the seeds, and their span), recall, parameters, training time, and
milliseconds an image, all systems in turns in one process. Writes OUTPUT/matrix.md, and
OUTPUT/pictures.png: image, ground truth, then what each system finds.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from functools import partial
from pathlib import Path

from seg_plugins.data import Dataset, build_mapper
from seg_plugins.visualization import overlays, samples
from seg_plugins.visualization.samples import prediction_of_records

import cv2
import numpy as np
import run_matrix
import torch
from detectron2.config import CfgNode
from timing import medians
from torch import nn

SYSTEMS = ("mask_rcnn_fpn", "solo_v2", "cond_inst", "solo", "yolact", "polar_mask", "adaptis",
           "instance_fcn")  # fmt: skip
CONFIGS = {
    "shapes": {name: f"shapes/{name}_r18.yaml" for name in SYSTEMS}
    | {"mask_rcnn_fpn": "shapes/mask_rcnn_r18_fpn.yaml"},
    "dsb2018": {name: f"dsb2018/{name}_r18.yaml" for name in SYSTEMS}
    | {"mask_rcnn_fpn": "dsb2018/mask_rcnn_r18_fpn.yaml"},
}
COLUMNS = {"AP": "segm/AP", "AP50": "segm/AP50", "AP75": "segm/AP75", "AR@100": "segm/AR@100",
           "box AP": "bbox/AP"}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder of the runs")
    add("--dataset", choices=CONFIGS, default="shapes", help="default: shapes")
    add("--systems", nargs="*", choices=SYSTEMS, default=SYSTEMS, help="default: all")
    add("--seeds", nargs="*", type=int, default=[1], help="default: 1")
    add("--pictures", type=int, default=6, help="images drawn (default: 6)")
    add("--repeats", type=int, default=20, help="images timed (default: 20)")
    add("opts", nargs="*", help="after --: KEY VALUE, as of train_net.py")
    args = parser.parse_args()
    runs: dict[str, list[Path]] = {}
    for name in args.systems:
        for seed in args.seeds:
            run = args.output / name / f"seed_{seed}"
            config = CONFIGS[args.dataset][name]
            run_matrix.train(config, run, ["SEED", str(seed), *args.opts])
        # Those of an earlier call count too.
        runs[name] = sorted(p.parent for p in (args.output / name).glob("seed_*/model_final.pth"))
    models = {name: run_matrix.load(folders[0]) for name, folders in runs.items()}
    times = milliseconds(models, args.repeats)
    header = ["system", "seeds", *COLUMNS, "parameters", "iterations", "training", "ms/image",
              "memory"]  # fmt: skip
    table = run_matrix.markdown([header, *(row(n, runs[n], times[n]) for n in runs)])
    (args.output / "matrix.md").write_text(table)
    print(table)
    if args.pictures:
        draw(models, args.pictures, args.output / "pictures.png")


def row(name: str, runs: list[Path], time: float) -> list[str]:
    """The figures of a system's runs."""
    results = [run_matrix.results(run) for run in runs]
    records = [run_matrix.record(run) for run in runs]
    memory = [gib for run in runs if (gib := run_matrix.memory(run)) is not None]
    return [
        name,
        str(len(runs)),
        *(span([found[key] for found in results if key in found]) for key in COLUMNS.values()),
        f"{records[0]['parameters'] / 1e6:.2f} M",
        f"{records[0]['iterations']} x {records[0]['batch']}",
        f"{max(record['seconds'] for record in records) / 60:.1f} min",
        f"{time:.0f}",
        run_matrix.or_dash(max(memory, default=None), "{:.1f} GiB"),
    ]


def span(values: list[float]) -> str:
    """The mean, and the least and the greatest where there are several."""
    if not values:
        return "-"
    mean = f"{sum(values) / len(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.1f} to {max(values):.1f})"


def records_of(models: dict[str, tuple[CfgNode, nn.Module]], count: int) -> tuple[Dataset, list]:
    """As many records of the test set, spread over it."""
    cfg = next(iter(models.values()))[0]
    dataset = Dataset.get(cfg.DATASETS.TEST[0])
    chosen = np.linspace(0, len(dataset.records) - 1, count).astype(int)
    return dataset, [dataset.records[i] for i in chosen]


@torch.no_grad()
def milliseconds(models: dict[str, tuple[CfgNode, nn.Module]], count: int) -> dict[str, float]:
    """Medians over images of the test set, all systems in turns; reading excluded."""
    _, records = records_of(models, count)
    times: dict[str, list[float]] = {name: [] for name in models}
    mappers = {name: build_mapper(cfg, False) for name, (cfg, _) in models.items()}
    for record in records:
        candidates = {
            name: partial(model, [mappers[name](copy.deepcopy(record))])
            for name, (_, model) in models.items()
        }
        for name, time in medians(candidates, 1).items():
            times[name].append(time)
    return {name: statistics.median(values) for name, values in times.items()}


def draw(models: dict[str, tuple[CfgNode, nn.Module]], count: int, path: Path) -> None:
    """One row for each image of the test set: image, truth, and what each system finds."""
    dataset, records = records_of(models, count)
    columns: list[list[np.ndarray]] = []
    for cfg, model in models.values():
        with prediction_of_records(cfg, model) as predict:
            drawn = [
                samples.draw("instances", record, predict(record), dataset, cfg.INPUT.FORMAT)[0]
                for record in records
            ]
        if not columns:
            columns = [[d["image"] for d in drawn], [d["truth"] for d in drawn]]
        columns.append([d["prediction"] for d in drawn])
    grid = overlays.grid([list(row) for row in zip(*columns, strict=True)], width=256)
    cv2.imwrite(str(path), grid[:, :, ::-1])
    print(f"Pictures (image | ground truth | {' | '.join(models)}): {path}")


if __name__ == "__main__":
    main()
