"""An exported file in the place of the model that it was made from."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn

from ..config import config_from_text
from ..modeling.test_time.views import Views
from .engines import Engine, open_engine
from .errors import ModelFileError
from .results import system_output, system_output_of_views

Sample = dict[str, Any]
# Tasks of exported files, and what every file says of itself, and panoptic ones.
TASKS = ("sem_seg", "instances", "panoptic")
_NEEDED = ("task", "config", "classes", "colors", "ignore_label")
_OF_LABELS = ("label_classes", "label_colors")


class FileModel(nn.Module):
    """Takes and gives what the PyTorch model does: Detectron2's samples and outputs.

    The file computes what the network does; masks and scores come to the size of the output by the
    system's own code, which is built from the file's configuration without memory for weights.

    Args:
        engine: the opened file.
        cfg: of its metadata.
        name: of the file, for errors.

    Attributes:
        cfg: of the file's metadata.
        alignment: the network's largest stride.
    """

    def __init__(self, engine: Engine, cfg: CfgNode, name: str) -> None:
        super().__init__()
        self.engine, self.cfg, self.name = engine, cfg, name
        # Windows start on the network's grid; 64 holds where a file does not say its stride.
        self.alignment = int(engine.metadata.get("alignment", 64))
        # In a list a system is no part of this module, with parameters that anybody could use.
        # Label maps need none, and building one can take seconds (timm's import).
        self._systems = [] if engine.metadata["task"] == "sem_seg" else [_without_weights(cfg)]

    @classmethod
    def open(
        cls, path: str | Path, runtime: str = "", *, threads: int = 0, precision: str = "float32"
    ) -> FileModel:
        """Open a file: see :func:`.engines.open_engine`.

        Raises:
            ModelFileError: it cannot be run, or another program wrote it.
            ConfigError: it was made with parts of somebody's own that are not imported.
        """
        engine = open_engine(path, runtime, threads=threads, precision=precision)
        missing = [key for key in _NEEDED if key not in engine.metadata]
        task = engine.metadata.get("task")
        if task == "panoptic":
            missing += [key for key in _OF_LABELS if key not in engine.metadata]
        if missing:
            raise ModelFileError(
                f"{path}: its metadata lack {' and '.join(missing)}: it is no file of seg-plugins "
                "export, which puts in how images are prepared and what classes there are"
            )
        if task not in TASKS:
            raise ModelFileError(
                f"{path}: its metadata name the task '{task}', which is none of "
                f"{', '.join(TASKS)}: export it again with this version"
            )
        stride = engine.metadata.get("alignment", "64")
        if not (stride.isdecimal() and int(stride) > 0):
            raise ModelFileError(
                f"{path}: its metadata give '{stride}' as alignment, which should be the network's "
                "largest stride in pixels: export it again with this version"
            )
        return cls(engine, config_from_text(engine.metadata["config"], str(path)), str(path))

    def forward(self, samples: list[Sample]) -> list[dict[str, Any]]:
        """Detectron2's outputs at the wanted size, one dict an image.

        Args:
            samples: ``image`` (C, H, W) in raw range; ``height`` and ``width`` of the output.

        Raises:
            ModelFileError: the file does not take an image.
        """
        results: list[dict[str, Any]] = []
        for _, group in itertools.groupby(samples, lambda sample: sample["image"].shape):
            results += self._equal_sizes(list(group))
        return results

    def predict_views(self, views: Views) -> dict[str, Any]:
        """The output for an image by its views: test-time augmentation.

        Raises:
            ModelFileError: the file does not take an image.
        """

        def run(sample: Sample) -> dict[str, Tensor]:
            return self._found([sample])[0]

        return system_output_of_views(self._system, run, views)

    def check_test_time_augmentation(self) -> None:
        """Raise ModelFileError where the views of an image cannot be put together."""
        if hasattr(self._system, "roi_heads"):
            raise ModelFileError(
                f"{self.name}: TEST.AUG.ENABLED True: the views of an image are asked for masks in "
                "one another's boxes, which the file of a system of regions does not give. Predict "
                "with the run's config.yaml and weights, or set TEST.AUG.ENABLED False"
            )

    def _equal_sizes(self, samples: list[Sample]) -> list[dict[str, Any]]:
        found = self._found(samples)
        return [
            system_output(self._system, of_one, sample)
            for of_one, sample in zip(found, samples, strict=True)
        ]

    def _found(self, samples: list[Sample]) -> list[dict[str, Tensor]]:
        """What the file gives of images of one size."""
        images = [sample["image"].float().numpy() for sample in samples]
        if self.engine.rank == 3:
            found = [self.engine.run(image) for image in images]
        else:
            self._check_window(images[0])
            outputs = self.engine.run(np.stack(images))
            found = [
                {name: values[i] for name, values in outputs.items()} for i in range(len(images))
            ]
        return [{name: torch.from_numpy(values) for name, values in f.items()} for f in found]

    @property
    def _system(self) -> nn.Module | None:
        return next(iter(self._systems), None)

    def _check_window(self, image: np.ndarray) -> None:
        """A sliding window that reaches out of its image reads what is not there."""
        inference = self.cfg.MODEL.INFERENCE
        if inference.MODE != "slide":
            return
        if any(s < w for s, w in zip(image.shape[1:], inference.WINDOW, strict=True)):
            size, window = ("x".join(map(str, s)) for s in (image.shape[1:], inference.WINDOW))
            raise ModelFileError(
                f"{self.name}: the image has {size} pixels, and the window in the file "
                f"{window}: export it with a smaller MODEL.INFERENCE.WINDOW, or enlarge images "
                "(INPUT.MIN_SIZE_TEST)"
            )


def _without_weights(cfg: CfgNode) -> nn.Module:
    """The system of a configuration, for its own code alone."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE, cfg.MODEL.TIMM.PRETRAINED, cfg.MODEL.WEIGHTS = "meta", False, ""
    cfg.MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS = None  # they serve the loss only
    cfg.MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT = "rle"  # the memory of the outlines
    with torch.device("meta"):
        return build_model(cfg).eval()
