"""Run folders made by hand, with everything a report can show."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

# Each would break out of the element, attribute, script or formula that it stands in.
HOSTILE = [
    "<script>window.hacked = 1</script>",
    "\"><img src=x onerror='window.hacked = 1'>",
    "_$\\frac{a}{",
    "</style></title>&amp;{{ 7 * 7 }}",
    "a\x00b\ud800\u202e",
]


def write_run(folder: Path, *, classes: list[str] | None = None, seed: int = 0) -> Path:
    """A run of three tasks with four or so classes."""
    names = classes or ["road", "sky", "car", "tree"]
    rng = np.random.default_rng(seed)
    (folder / "inference" / "examples").mkdir(parents=True)
    (folder / "config.yaml").write_text(f"SEED: {seed}\nMODEL:\n  NAME: 'a<b>'\n")
    record = {
        "system": "UNet",
        "parameters": 1234567,
        "seed": 20261122,
        "command": "tools/train_net.py --config-file 'a<b>.yaml'",
        "repeat": "tools/train_net.py --config-file 'a<b>.yaml' SEED 20261122",
        "datasets": {"train": ["t"], "test": names[:1]},
        "versions": {"torch": "2.14.1"},
    }
    dump(folder / "run.json", record)
    rows = [
        {"iteration": i, "total_loss": 3 / (i + 1), "loss_a": 1.0, "loss_b": 2.0, "lr": 0.1}
        for i in range(5)
    ]
    rows += [{"iteration": i, "sem_seg/mIoU": 10.0 * i, "sem_seg/IoU-x": 1.0} for i in (2, 4)]
    rows[1]["total_loss"] = float("nan")
    (folder / "metrics.json").write_text(
        "\n".join(map(json.dumps, rows)) + '\n{"iteration": 9, "tot'
    )
    part = {"name": "backbone", "parameters": 10**6, "multiply_adds": 2 * 10**9}
    dump(folder / "system.json", {"size": [64, 96], "rows": [part]})
    n = len(names)
    scores = {f"IoU-{name}": 10.0 * (i + 1) if i else None for i, name in enumerate(names)}
    semantic = {
        "dataset": "t_val",
        "images": {"expected": 5, "scored": 5},
        "results": {"sem_seg": {"mIoU": 25.0 + seed, **scores}},
        "classes": names,
        "confusion": rng.integers(0, 1000, (n + 1, n + 1)).tolist(),
    }
    dump(folder / "inference" / "sem_seg_results.json", semantic)
    curve = [1 - i / 100 for i in range(101)]
    instances = {
        "dataset": "t_val",
        "results": {"segm": {"AP": 40.0, "APs": 20.0, **{f"AP-{name}": 1.5 for name in names}}},
        "by_class_and_size": {"segm": {name: {"AP": 1.0, "APs": None} for name in names}},
        "pr_curves": {
            "segm": {
                "recall": [i / 100 for i in range(101)],
                "AP50": curve,
                "AP50_by_class": {names[0]: curve, names[1]: None, names[2]: curve},
            }
        },
    }
    dump(folder / "inference" / "instances_results.json", instances)
    panoptic = {
        "dataset": "t_val",
        "results": {"panoptic_seg": {"PQ": 50.0, **{f"PQ-{name}": 2.0 for name in names}}},
        "counts": {name: {"tp": 3, "fp": 1, "fn": 0} for name in names},
    }
    dump(folder / "inference" / "panoptic_seg_results.json", panoptic)
    pictures = {}
    for kind, value in {"image": 40, "truth": 90, "prediction": 160, "error": 220}.items():
        pictures[kind] = f"0_{kind}.png"
        picture = np.full((30, 40, 3), value, np.uint8)
        cv2.imwrite(str(folder / "inference" / "examples" / pictures[kind]), picture)
    example = {
        "task": "panoptic_seg",
        "rank": "worst",
        "file_name": f"/data/{names[0]}.png",
        "score": 12.5,
        "pictures": pictures,
        "segments": [["1", names[1], 120, 0.5]],
        "legend": [[names[0], [255, 0, 0]]],
    }
    dump(folder / "inference" / "examples" / "examples.json", [example])
    return folder


def dump(path: Path, content: object) -> None:
    """Write JSON."""
    path.write_text(json.dumps(content))
