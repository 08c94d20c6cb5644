"""Training processes forked from one that has everything imported: a run starts in half a second.

Each runs what ``seg-plugins train`` does on a tiny dataset, and tells through shared memory how
far it is, so that it can be broken at a known moment.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import seg_plugins  # noqa: F401 - repairs Detectron2 before it is imported
from seg_plugins import SegPluginsError
from seg_plugins.cli.train import main as train_command
from seg_plugins.engine import Checkpointer, Trainer, argument_parser, launch

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import defaults
from detectron2.structures import BoxMode
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
DATASET, INSTANCES = "faults_train", "faults_instance_train"
ITERATIONS, PERIOD = 18, 4

# Crop, flip, colour and dropout are on: everything that draws random numbers.
OPTIONS = [
    *("MODEL.UNET.DEPTH", "2", "MODEL.UNET.WIDTH", "16", "MODEL.UNET.PADDING", "same"),
    *("MODEL.UNET.NORM", "BN", "MODEL.SEM_SEG_HEAD.IN_FEATURES", "['enc1', 'enc2']"),
    *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3", "DATASETS.TRAIN", f"('{DATASET}',)"),
    *("DATASETS.TEST", "()", "DATASETS.CHECK_SAMPLES", "0", "INPUT.RANDOM_FLIP", "horizontal"),
    *("INPUT.MIN_SIZE_TRAIN", "(40, 48)", "INPUT.COLOR_AUG_SSD", "True"),
    *("INPUT.CROP.ENABLED", "True", "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", "(32, 32)"),
    *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", str(ITERATIONS), "SOLVER.WARMUP_ITERS", "0"),
    *("SOLVER.CHECKPOINT_PERIOD", str(PERIOD), "SOLVER.AMP.ENABLED", "False"),
    *("DATALOADER.NUM_WORKERS", "0", "SEED", "7", "LOG_PERIOD", "1000", "TEST.PICTURES", "0"),
    *("TEST.REPORT", "False"),
]
# The first backward pass of a process decides: after a FakeTensorMode autograd starts a thread for
# a GPU, also where there is none, and a forked child can't train then. This is the first.
torch.ones(1, requires_grad=True).sum().backward()
# The report of the system's parts takes longer than the training.
defaults.collect_env_info = lambda: "not collected"
# Longer than any run takes, on a busy machine too: who is not done by then hangs.
LONG = 300.0


def register_dataset(folder: Path) -> None:
    """Twelve images of 48x40 pixels with 3 classes that their brightness shows."""
    if DATASET in DatasetCatalog.list():
        return
    rng = np.random.default_rng(0)
    records = []
    for i in range(12):
        label = np.zeros((40, 48), np.uint8)
        label[:, rng.integers(8, 24) :] = 1
        label[rng.integers(8, 30) :] = 2
        image = (label[..., None] * 80 + rng.integers(0, 60, (40, 48, 3))).astype(np.uint8)
        files = folder / f"image_{i}.png", folder / f"label_{i}.png"
        if not files[1].exists():
            Image.fromarray(image).save(files[0])
            Image.fromarray(label).save(files[1])
        box = [4, 4, 30 + i % 4, 34]
        outline = [4, 4, box[2], 4, box[2], 34, 4, 34]
        records.append({
            "file_name": str(files[0]), "sem_seg_file_name": str(files[1]),
            "image_id": i, "height": 40, "width": 48,
            "annotations": [{"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0,
                             "segmentation": [outline], "iscrowd": 0}],
        })  # fmt: skip
    DatasetCatalog.register(DATASET, lambda: records)
    DatasetCatalog.register(INSTANCES, lambda: records)
    MetadataCatalog.get(INSTANCES).set(thing_classes=["a"], evaluator_type="coco")
    MetadataCatalog.get(DATASET).set(
        stuff_classes=["dark", "middle", "bright"], stuff_colors=[[0, 0, 0]] * 3,
        ignore_label=255, evaluator_type="sem_seg",
    )  # fmt: skip


def dataset_folder() -> Path:
    """Where the files of the dataset lie."""
    return Path(DatasetCatalog.get(DATASET)[0]["file_name"]).parent


def arguments(
    out: Path, *opts: str, resume: bool = False, base: Sequence[str] | None = None
) -> Any:
    """Arguments of the command; `base` replaces the model and dataset of this module."""
    config, options = "quickstart/unet_shapes.yaml", list(OPTIONS)
    if base:
        config, options = base[0], list(base[1:])
    flags = ["--config-file", config, "--num-gpus", "0", "--timeout", "1"]
    flags += ["--resume"] if resume else []
    return argument_parser().parse_args([*flags, *options, "OUTPUT_DIR", str(out), *opts])


class Progress:
    """Numbers that a child writes and its parent reads, also after the child was killed."""

    FIELDS = ("iteration", "saving", "pid_0", "pid_1", "operations")

    def __init__(self, file: Path | None = None) -> None:
        """Shared with forked children, or through a file with any process."""
        size = 8 * len(self.FIELDS)
        if file is None:
            self._memory = mmap.mmap(-1, size)
            return
        if not file.exists():
            file.write_bytes(bytes(size))
        with open(file, "r+b") as shared:
            self._memory = mmap.mmap(shared.fileno(), size)

    def __getitem__(self, field: str) -> int:
        return int(struct.unpack_from("q", self._memory, 8 * self.FIELDS.index(field))[0])

    def __setitem__(self, field: str, value: int) -> None:
        struct.pack_into("q", self._memory, 8 * self.FIELDS.index(field), value)


def watch(progress: Progress) -> None:
    """Let this process's trainers tell how far they are: iterations completed, within a save."""
    after_step, write = Trainer.after_step, Checkpointer._write

    def counting(self: Trainer) -> None:
        after_step(self)
        progress["iteration"] = self.iter + 1

    def flagged(self: Checkpointer, *args: Any) -> None:
        progress["iteration"] = torch_iteration(args)
        progress["saving"] = 1
        write(self, *args)
        progress["saving"] = 0

    Trainer.after_step, Checkpointer._write = counting, flagged


def torch_iteration(args: Sequence[Any]) -> int:
    """Iterations completed when a checkpoint with these arguments is written."""
    return int(args[1]["iteration"]) + 1


def train(args: Any, progress: Progress | None = None, prepare: Callable[[], None] | None = None):
    """What a forked child does: the tool's main, with the tool's error messages."""
    if progress is not None:
        watch(progress)
    if prepare is not None:
        prepare()
    try:
        launch(train_command, args)
    except SegPluginsError as error:
        sys.exit(f"error: {error}")


def fork(function: Callable[[], Any], log: Path) -> int:
    """Run a function in a forked process with its own process group and log file; its pid."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        os.setpgid(0, 0)
        write_to(log)
        function()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        os.write(2, f"{end.code}\n".encode())
    finally:
        if status == 70:
            os.write(2, traceback.format_exc().encode())
        os._exit(status)


def write_to(log: Path) -> None:
    """Let standard output and errors of this process go to a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


class HangError(RuntimeError):
    """A process did not end, or did not get on; it was killed."""


def is_running(pid: int) -> bool:
    """Whether a child has not ended; its exit status is left for :func:`wait`."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def wait_for(progress: Progress, iteration: int, pid: int, timeout: float = LONG) -> None:
    """Wait until a child has completed so many iterations, or has ended.

    Raises:
        HangError: neither within the time.
    """
    end = time.monotonic() + timeout
    while progress["iteration"] < iteration and is_running(pid):
        if time.monotonic() > end:
            hung(pid, timeout)
        time.sleep(0.0005)


def hung(pid: int, timeout: float) -> NoReturn:
    """Kill a process, and say so: a row of the table ends with its first hang."""
    kill_group(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise HangError(f"process {pid} hung: killed after {timeout:.0f} s")


def wait(pid: int, timeout: float) -> int:
    """Exit status, negative for a signal.

    Raises:
        HangError: it did not end within the time.
    """
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            kill_group(pid)
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.004)
    hung(pid, timeout)


def kill_group(pid: int) -> None:
    """End what is left of a child's process group, its data workers."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def run(args: Any, log: Path, timeout: float = LONG, **options: Any) -> int:
    """Train in a forked process to its end."""
    return wait(fork(lambda: train(args, **options), log), timeout)


def resumed_at(out: Path) -> int:
    """The iteration a run was resumed at, by its log.txt; 0 where it began anew."""
    log = (out / "log.txt").read_text(errors="replace")
    found = re.findall(r"Resuming at iteration (\d+)", log)
    return int(found[-1]) if found else 0


def state_hash(checkpoint: Path) -> str:
    """SHA-256 of model, optimizer, loss scale, place in the data and random states."""
    content = torch.load(checkpoint, weights_only=True)
    trainer = content["trainer"]
    digest = hashlib.sha256()
    parts = [content["model"], trainer["_trainer"], trainer["samples_drawn"]]
    _add(digest, [*parts, trainer["random_states"]])
    return digest.hexdigest()


def _add(digest: Any, value: Any) -> None:
    if torch.is_tensor(value):
        digest.update(value.contiguous().numpy().tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            digest.update(str(key).encode())
            _add(digest, value[key])
    elif isinstance(value, (list, tuple)):
        for item in value:
            _add(digest, item)
    else:
        digest.update(repr(value).encode())
