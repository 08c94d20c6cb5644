"""Files that go wrong: a full disk, damaged checkpoints, content that wants to be executed."""

from __future__ import annotations

import json
import logging
import os
import pickle
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import seg_plugins
from seg_plugins.config import ConfigError
from seg_plugins.data import DatasetError, register_custom_dataset
from seg_plugins.engine import Checkpointer, Trainer, WeightsError

import numpy as np
import torch
import warm
from detectron2.data import DatasetCatalog
from row import Row
from torch import nn
from warm import PERIOD


def disk_full(runs: int, rng: random.Random, folder: Path) -> Row:
    """The disk takes only a part of a checkpoint: /dev/full, or a limit on the size of files."""
    warm.run(warm.arguments(folder / "whole"), folder / "whole.log")
    size = (folder / "whole" / "model_final.pth").stat().st_size
    intact = named = 0
    for i in range(runs):
        out, log = folder / f"run_{i}", folder / f"run_{i}.log"
        limit = int(size * (0.3 + 0.65 * rng.random()))
        args = warm.arguments(out)
        status = warm.run(args, log, prepare=lambda n=limit: _limit_after_first_save(n))
        text = log.read_text(errors="replace")
        named += (
            status == 1
            and f"error: {out}/model_final.pth could not be written" in text
            and ("MB are needed" in text)
        )
        newest = Checkpointer(nn.Identity(), str(out)).newest_intact()
        rest = [f.name for f in out.iterdir() if f.name.startswith(".")]
        intact += newest is not None and newest.name == f"model_{PERIOD - 1:07d}.pth" and not rest
    return Row("disk full", runs, f"{intact} previous checkpoint intact, {named} messages with "
               "path and size", intact == named == runs)  # fmt: skip


def _limit_after_first_save(limit: int) -> None:
    original = Trainer.after_step

    def after_step(self: Trainer) -> None:
        original(self)
        if self.iter == PERIOD - 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    Trainer.after_step = after_step


def damaged(runs: int, rng: random.Random, folder: Path) -> Row:
    """The newest checkpoint is cut off or has one bit flipped, or a file beside it has."""
    logger = logging.getLogger("fvcore.common.checkpoint")
    level = logger.level
    logger.setLevel(logging.ERROR)  # each run warns of what it broke
    try:
        return _damaged(runs, rng, folder)
    finally:
        logger.setLevel(level)


def _damaged(runs: int, rng: random.Random, folder: Path) -> Row:
    source = folder / "whole"
    model = nn.Linear(64, 64)
    checkpointer = Checkpointer(model, str(source))
    source.mkdir()
    for i in range(3):
        nn.init.constant_(model.weight, i)
        checkpointer.save(f"model_{i:07d}", iteration=i)
    found = 0
    for i in range(runs):
        out = folder / "damaged"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(source, out)  # with the times of the files
        newest = out / "model_0000002.pth"
        target = rng.choice([newest] * 6 + [out / "model_0000002.pth.sha256"])
        content = bytearray(target.read_bytes())
        if i % 3 == 0:
            content = content[: rng.randrange(len(content))]
        else:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        target.write_bytes(content)
        if i % 5 == 0 and target == newest:  # as if another program had written it
            (out / "model_0000002.pth.sha256").unlink()
        loaded = Checkpointer(model, str(out)).resume_or_load("", resume=True)
        same = bool((model.weight == loaded["iteration"]).all())
        # A flip in the name that stands beside the digest harms nothing.
        harmless = target != newest and loaded["iteration"] == 2
        found += same and (loaded["iteration"] == 1 or harmless)
    return Row("truncated or flipped checkpoint", runs, f"{found} detected, continued from the one "
               "before", found == runs)  # fmt: skip


# ---------------------------------------------------------------------------------- malice

TAGS = (
    "!!python/object/apply:os.system [touch {}]",
    "!!python/object/apply:subprocess.check_output [[touch, {}]]",
    "!!python/object/new:os.system [touch {}]",
    '!!python/object/apply:builtins.eval [\'open("{}", "w")\']',
    '!!python/object/apply:builtins.exec [\'open("{}", "w")\']',
    "!!python/object/apply:os.mkdir [{}]",
    "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{}]]",
    "!!python/name:os.system",
    "!!python/module:antigravity",
    "!!python/object:argparse.Namespace {{a: 1}}",
)


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.what = function, arguments

    def __reduce__(self) -> Any:
        return self.what


def _calls(target: str) -> list[Call]:
    return [
        Call(os.system, f"touch {target}"), Call(os.mkdir, target), Call(open, target, "w"),
        Call(eval, f"open({target!r}, 'w')"), Call(exec, f"open({target!r}, 'w')"),
        Call(np.save, target, np.zeros(1)), Call(torch.save, {}, target),
    ]  # fmt: skip


def attacks(folder: Path, target: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Names of attacks, and what a user would do that meets them."""
    number = 0

    def new(suffix: str) -> Path:
        nonlocal number
        number += 1
        return folder / f"evil_{number}{suffix}"

    for tag in TAGS:
        text = tag.format(target)
        plain = new(".yaml")
        plain.write_text(f"MODEL:\n  WEIGHTS: {text}\n")
        yield f"YAML {text}", lambda f=plain: seg_plugins.load_config(f)
        chain = new(".yaml")
        chain.write_text(f"_BASE_: {plain.name}\nSEED: 1\n")
        yield f"_BASE_ {text}", lambda f=chain: seg_plugins.load_config(f)
        custom = new(".yaml")
        custom.write_text(f"name: x\ntask: semantic\nclasses: {text}\n")
        yield f"dataset {text}", lambda f=custom: register_custom_dataset(f)
    for text in ("__import__('os').system('touch {}')", "open('{}', 'w')", "$(touch {})"):
        opts = ["MODEL.WEIGHTS", text.format(target)]
        yield (
            f"option {text}",
            lambda o=opts: _refused(
                o[1] == seg_plugins.load_config("quickstart/unet_shapes.yaml", o).MODEL.WEIGHTS
            ),
        )
    for protocol in (0, 2, 4):
        for call in _calls(str(target)):
            file = new(".pkl")
            file.write_bytes(pickle.dumps({"model": call, "__author__": "x"}, protocol=protocol))
            yield f".pkl {call.what[0].__name__} {protocol}", lambda f=file: _load(f)
    for call in _calls(str(target)):
        for legacy in (False, True):
            file = new(".pth")
            torch.save({"model": call}, file, _use_new_zipfile_serialization=not legacy)
            yield f".pth {call.what[0].__name__}", lambda f=file: _load(f)
    for name in ("../../etc/passwd", "/etc/passwd", "..\\..\\etc\\passwd", "C:\\secret", "a\0b"):
        yield f"path {name!r}", lambda n=name: _coco_with(folder, n)


def _load(file: Path) -> None:
    Checkpointer(nn.Linear(1, 1), "").load(str(file))


def _refused(plain_text: bool) -> None:
    if plain_text:
        raise ConfigError("taken as text, which it is")


def _coco_with(folder: Path, name: str) -> None:
    """A COCO file whose image lies elsewhere."""
    (folder / "annotations.json").write_text(json.dumps({
        "images": [{"id": 1, "file_name": name, "width": 4, "height": 4}],
        "categories": [{"id": 1, "name": "a"}], "annotations": [],
    }))  # fmt: skip
    description = folder / "coco.yaml"
    description.write_text(
        "name: coco_evil\ntask: instance\nclasses: [a]\n"
        "train: {images: ., json: annotations.json}\n"
    )
    DatasetCatalog.get(register_custom_dataset(description)["train"])


def malicious(runs: int, rng: random.Random, folder: Path) -> Row:
    """Nothing is executed, and each attempt is an error; all attacks are made at least once."""
    target = folder / "executed"
    executed = accepted = count = 0
    for name, attempt in attacks(folder, target):
        count += 1
        try:
            attempt()
        except (ConfigError, DatasetError, WeightsError):
            pass
        else:
            accepted += 1
            print(f"accepted: {name}")
        if target.exists():
            executed += 1
            shutil.rmtree(target) if target.is_dir() else target.unlink()
    return Row("malicious YAML, .pkl, .pth, path strings", count,
               f"{executed} executed, {accepted} accepted", executed == accepted == 0)  # fmt: skip
