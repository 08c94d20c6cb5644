"""Keys of a run: SOLVER, TEST, and those beside them at the top."""

from __future__ import annotations

from detectron2.config import CfgNode

from .defaults import set_defaults


def add_run_keys(cfg: CfgNode) -> None:
    """Log, determinism, averaged weights, Weights & Biases."""
    # Files and modules with parts of your own that a run was made with (--import, or of installed
    # packages). It is a record: nothing is imported because it stands here.
    set_defaults(cfg, IMPORTS=[])
    # Iterations between two lines of the log, metrics.json and TensorBoard.
    set_defaults(cfg, LOG_PERIOD=20)
    # Deterministic kernels where PyTorch has them; it warns by name where it has none.
    set_defaults(cfg, DETERMINISTIC=False)
    set_defaults(cfg, MODEL_EMA=CfgNode(), WANDB=CfgNode())
    set_defaults(
        cfg.MODEL_EMA,
        # Moving average of the weights, which evaluation and model_best use.
        ENABLED=False,
        # Share of the old average that an iteration keeps.
        DECAY=0.999,
    )
    set_defaults(
        cfg.WANDB,
        # Project at Weights & Biases, beside TensorBoard and metrics.json; "" = off.
        PROJECT="",
        # Name of the run there; "" leaves it to them.
        NAME="",
        # A run there that is continued.
        ID="",
    )


def add_solver_keys(solver: CfgNode) -> None:
    """Optimizer, schedule, precision, checkpoints, when to stop."""
    # "SGD" (Detectron2's) or "AdamW".
    set_defaults(solver, OPTIMIZER="SGD")
    # Passes over the training images, instead of MAX_ITER; STEPS keep their places in the run. A
    # pass has as many samples as there are images, also where a sampler repeats some (then others
    # come less often); of a random subset it is the subset. 0 = off.
    set_defaults(solver, EPOCHS=0.0)
    # Learning-rate factors by part of the model, e.g. [["backbone", 0.1]]: the longest prefix of
    # a parameter's name wins.
    set_defaults(solver, LR_FACTORS=[])
    # --- shared with Detectron2's DeepLab project
    set_defaults(
        solver,
        # WarmupPolyLR: exponent of the share of the iterations that are left.
        POLY_LR_POWER=0.9,
        # WarmupPolyLR: factor of BASE_LR that the rate stays at, once it is below; 0 = off.
        POLY_LR_CONSTANT_ENDING=0.0,
    )
    # --- this package's own
    # Autocast type when SOLVER.AMP.ENABLED: "float16" (GPU) or "bfloat16" (GPU, CPUs that have it).
    set_defaults(solver.AMP, DTYPE="float16")
    # Parts in which each process takes its share of IMS_PER_BATCH, one after the other: the same
    # step with less memory (batch statistics are those of a part).
    set_defaults(solver, ACCUMULATE=1)
    # Batch that BASE_LR is meant for; BASE_LR is multiplied by IMS_PER_BATCH / it. 0 = as it is.
    set_defaults(solver, REFERENCE_BATCH=0)
    set_defaults(
        solver,
        # Numbered checkpoints to keep (0: all; with 1 there is none to fall back to).
        KEEP_CHECKPOINTS=0,
        # Write checkpoints in the background.
        BACKGROUND_CHECKPOINTS=False,
    )
    # Batches with a loss or gradient that is not finite to leave out before training stops.
    set_defaults(solver, MAX_SKIPPED_BATCHES=0)
    set_defaults(solver, EARLY_STOPPING=CfgNode())
    set_defaults(
        solver.EARLY_STOPPING,
        # Stop after so many evaluations without a gain of TEST.BEST_METRIC; 0 = never.
        PATIENCE=0,
        # A gain is larger than this.
        MIN_GAIN=0.0,
    )


def add_test_keys(test: CfgNode) -> None:
    """What evaluation measures and writes."""
    # Validation samples in the picture grid written at the end of training; 0 writes none.
    set_defaults(test, PICTURES=8)
    set_defaults(
        test,
        # Write report.html at the end of a training and of --eval-only.
        REPORT=True,
        # In it so many of the worst and of the best images of each task, which are predicted
        # again; 0 shows none.
        REPORT_IMAGES=3,
    )
    # Resamples of the test images from which that report has the figures' 95% intervals; 0 = none.
    set_defaults(test, BOOTSTRAP=1000)
    # Result that decides which checkpoint is kept as model_best.pth, e.g. "sem_seg/mIoU";
    # "" takes the main one of the task (PQ, mask AP, box AP, mIoU).
    set_defaults(test, BEST_METRIC="")
    # Losses on DATASETS.TEST at every evaluation, as validation/total_loss, ...
    set_defaults(test, LOSS=False)
    # Write every prediction to inference/, in the format of the dataset's benchmark.
    set_defaults(test, SAVE_PREDICTIONS=False)
    # Boundary IoU, boundary F1 and trimap mIoU; Boundary AP for instances. Slower.
    set_defaults(test, BOUNDARY_MEASURES=False)
    # AP and recall of instances with all classes as one, "object" (pycocotools' useCats = 0).
    set_defaults(test, CLASS_AGNOSTIC=False)
