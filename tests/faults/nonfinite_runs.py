"""NaN in losses, gradients and boxes of every system, in full precision and under autocast."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

from seg_plugins.engine import Trainer

import torch
import warm
from row import Row

SEMANTIC = (
    *("DATASETS.TRAIN", f"('{warm.DATASET}',)", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3"),
    *("INPUT.MIN_SIZE_TRAIN", "(40,)", "INPUT.CROP.ENABLED", "False"),
)
INSTANCES = (
    *("DATASETS.TRAIN", f"('{warm.INSTANCES}',)", "MODEL.ROI_HEADS.NUM_CLASSES", "1"),
    *("INPUT.MIN_SIZE_TRAIN", "(64,)"),
)
# A configuration of each system, and what makes it small.
SYSTEMS: dict[str, Sequence[str]] = {
    "deeplabv3plus": (
        "quickstart/deeplabv3plus_r18_shapes.yaml",
        *(*SEMANTIC, "MODEL.TIMM.NAME", "test_resnet"),
    ),
    "fcn": ("quickstart/fcn_vgg11_shapes.yaml", *SEMANTIC, "INPUT.MIN_SIZE_TRAIN", "(128,)"),
    "segnet": ("quickstart/segnet_vgg11_shapes.yaml", *SEMANTIC),
    "unet": ("quickstart/unet_shapes.yaml", *SEMANTIC),
    "patch_classifier": ("quickstart/patch_classifier_shapes.yaml", *SEMANTIC),
    "mask_rcnn_fpn": ("shapes/mask_rcnn_r18_fpn.yaml", *INSTANCES),
    "mask_rcnn_c4": ("shapes/mask_rcnn_r18_c4.yaml", *INSTANCES),
    "panoptic_unet": ("shapes/panoptic_unet.yaml", "DATASETS.CHECK_SAMPLES", "0"),
}

AT = 2  # iteration of the fault; a checkpoint is written after the one before


def not_finite(runs: int, rng: random.Random, folder: Path) -> Row:
    """Each must stop in the iteration of the fault, name files, and leave a sound `last`."""
    stopped = count = 0
    for system, base in list(SYSTEMS.items())[: runs or None]:
        for kind in ("loss", "gradient", "box") if "rcnn" in system else ("loss", "gradient"):
            for amp in ("False", "True"):
                count += 1
                good = _case(folder / f"{system}_{kind}_{amp}", kind, amp, base)
                stopped += good
                if not good:
                    print(f"not as required: {system}, {kind}, autocast {amp}")
    return Row("NaN in loss/gradient/box, each system, fp32 and bf16", count,
               f"{stopped} stopped at once, named the files and kept a sound last checkpoint",
               stopped == count)  # fmt: skip


def _case(out: Path, kind: str, amp: str, base: Sequence[str]) -> bool:
    opts = (
        *("SOLVER.MAX_ITER", "5", "SOLVER.CHECKPOINT_PERIOD", str(AT), "SOLVER.IMS_PER_BATCH", "2"),
        *("SOLVER.AMP.ENABLED", amp, "SOLVER.AMP.DTYPE", "bfloat16", "DATALOADER.NUM_WORKERS", "0"),
        *("DATASETS.CHECK_SAMPLES", "0", "DATASETS.TEST", "()", "TEST.PICTURES", "0"),
        *("SOLVER.WARMUP_ITERS", "0", "SOLVER.STEPS", "()", "SEED", "1", "LOG_PERIOD", "1000"),
        *("TEST.REPORT", "False"),
    )
    log = out.with_suffix(".log")
    args = warm.arguments(out, *opts, base=base)
    status = warm.run(args, log, prepare=lambda: _poison(kind))
    text = log.read_text(errors="replace")
    named = re.search(rf"error: .* not finite at iteration {AT}: .*\.(png|jpg)", text)
    last = out / f"model_{AT - 1:07d}.pth"
    if status != 1 or not named or not (out / "nan_dump").is_dir() or not last.is_file():
        return False
    weights = torch.load(last, weights_only=True)["model"].values()
    sound = all(torch.isfinite(w).all() for w in weights if w.is_floating_point())
    return sound and (out / "last_checkpoint").read_text() == last.name


def _poison(kind: str) -> None:
    """Let every trainer of this process meet the fault in iteration `AT`."""
    run_step = Trainer.run_step

    def poisoned(self: Trainer) -> None:
        if self.iter == AT:
            model = self.model
            if kind == "loss":
                forward = model.forward
                model.forward = lambda batch: {k: v * torch.nan for k, v in forward(batch).items()}
            elif kind == "gradient":
                next(p for p in model.parameters() if p.requires_grad).register_hook(
                    lambda gradient: gradient * torch.inf
                )
            else:
                with torch.no_grad():  # the first numbers that become boxes
                    head = model.proposal_generator.rpn_head.anchor_deltas
                head.register_forward_hook(lambda _, __, deltas: deltas * torch.nan)
        run_step(self)

    Trainer.run_step = poisoned
