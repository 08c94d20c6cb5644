"""A trained model behind one call: images in, predictions out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from PIL import Image
from torch import nn

from ..config import ConfigError, load_config, merge_opts
from ..engine.checkpoint import Checkpointer
from ..io.weights import WeightsError
from ..modeling.meta_arch.mask_rcnn import keep_scores_in_float32
from ..modeling.test_time.augmentation import TestTimeAugmentation, with_test_time_augmentation
from ..runtime import PRECISIONS, FileModel
from .errors import PredictionError
from .file_labels import labels_of_file
from .inputs import Picture, Preparation
from .labels import Labels, labels_from_config
from .prediction import Prediction

# A file, or (H, W, 3) uint8 in RGB, or Pillow's image (as its file: upright, for instance).
ImageLike = str | Path | np.ndarray | Image.Image


class Predictor:
    """Predicts with any registered system: semantic, instance or panoptic segmentation.

    >>> predictor = Predictor.from_config("run/config.yaml", "run/model_best.pth")
    >>> prediction = predictor("street.jpg")
    >>> prediction.semantic.shape, prediction.draw().shape

    Args:
        model: gives Detectron2's output format; it is set to evaluation.
        preparation: reads images and brings them to the model's input.
        labels: the model's classes.
        min_score: instances below it are left out.
        batch_size: images predicted at once, where they have the same size.
        identity: differs from that of other models; results are resumed for the same one only.
        precision: "bfloat16": a PyTorch model's layers compute in it where PyTorch's autocast lets
            them.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        preparation: Preparation,
        labels: Labels,
        min_score: float = 0.5,
        batch_size: int = 4,
        identity: str = "",
        precision: str = "float32",
    ) -> None:
        if precision not in PRECISIONS:
            raise PredictionError(f"precision '{precision}' is not one of {', '.join(PRECISIONS)}")
        if precision == "bfloat16":  # of other libraries' systems, too
            keep_scores_in_float32(model)
        self.model, self.precision = model.eval(), precision
        self.identity = identity
        self.preparation, self.labels = preparation, labels
        self.min_score, self.batch_size = min_score, batch_size

    @classmethod
    def from_config(
        cls,
        config: str | Path | CfgNode,
        weights: str | Path = "",
        *,
        opts: Sequence[str] = (),
        device: str = "",
        min_score: float = 0.5,
        batch_size: int = 4,
        precision: str = "float32",
    ) -> Predictor:
        """Build the model of a configuration and load its weights.

        Args:
            config: YAML file (a run's ``config.yaml``, or the name of a shipped one), or a
                configuration.
            weights: file; "" takes ``MODEL.WEIGHTS``.
            opts: ``KEY VALUE`` pairs that override the file.
            device: "" takes ``MODEL.DEVICE`` where it is there, else the CPU.
            min_score: instances below it are left out.
            batch_size: images predicted at once.
            precision: "float32", or "bfloat16": faster on processors that have it.

        Raises:
            ConfigError: the configuration is wrong.
            WeightsError: there are no weights, or they are not the whole of this model.
        """
        cfg = load_config(config, opts) if not isinstance(config, CfgNode) else config.clone()
        cfg.defrost()
        cfg.MODEL.WEIGHTS = str(weights) or cfg.MODEL.WEIGHTS
        if not cfg.MODEL.WEIGHTS:
            raise WeightsError("no weights: name the trained .pth or .safetensors file")
        if device:
            cfg.MODEL.DEVICE = device
        elif cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
            cfg.MODEL.DEVICE = "cpu"
        cfg.MODEL.TIMM.PRETRAINED = False  # the weights replace them
        cfg.MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT = "rle"  # the memory of the outlines
        labels = labels_from_config(cfg)
        model = build_model(cfg)
        checkpointer = Checkpointer(model, save_to_disk=False, image_format=cfg.INPUT.FORMAT)
        checkpointer.load(cfg.MODEL.WEIGHTS, complete=True)
        return cls(
            model=with_test_time_augmentation(cfg, model),
            preparation=Preparation(cfg),
            labels=labels,
            min_score=min_score,
            batch_size=batch_size,
            identity=_identity(cfg, cfg.MODEL.WEIGHTS, precision),
            precision=precision,
        )

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        runtime: str = "",
        opts: Sequence[str] = (),
        min_score: float = 0.5,
        batch_size: int = 4,
        threads: int = 0,
        precision: str = "float32",
    ) -> Predictor:
        """Predict with an exported file, which carries its configuration and classes.

        Args:
            path: ``.onnx``, or OpenVINO's ``.xml`` with its ``.bin`` beside it.
            runtime: ``onnx`` (onnxruntime) or ``openvino``, on the CPU; "" chooses by the suffix.
            opts: ``KEY VALUE`` pairs of ``INPUT``, how images are prepared, and of ``TEST.AUG``;
                all else is settled in the file.
            min_score: instances below it are left out.
            batch_size: images predicted at once, where the file takes several.
            threads: of the runtime; 0: as many as there are processors for this process.
            precision: "float32", or "bfloat16" (OpenVINO, on a processor that has it).

        Raises:
            ModelFileError: the file cannot be run here, another program wrote it, or it is of a
                system of regions and ``TEST.AUG`` is on.
            ConfigError: options that the file has settled.
        """
        model = FileModel.open(path, runtime, threads=threads, precision=precision)
        settled = [key for key in opts[::2] if not key.startswith(("INPUT.", "TEST.AUG."))]
        if settled:
            raise ConfigError(
                f"{path}: {', '.join(settled)} is settled in the file: export it again with "
                "--opts; predict can change INPUT and TEST.AUG alone"
            )
        merge_opts(model.cfg, opts)
        if model.cfg.TEST.AUG.ENABLED:
            model.check_test_time_augmentation()
        kind = f"{type(model.engine).__name__} {precision}"
        return cls(
            model=with_test_time_augmentation(model.cfg, model),
            preparation=Preparation(model.cfg),
            labels=labels_of_file(model.cfg, model.engine.metadata),
            min_score=min_score,
            batch_size=batch_size,
            identity=_identity(model.cfg, path, kind),
        )

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        parameter = next(self.model.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    # A text is one file name, not a list of letters.
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, images: ImageLike, *, order: str = "RGB"
    ) -> Prediction: ...

    @overload
    def __call__(self, images: Sequence[ImageLike], *, order: str = "RGB") -> list[Prediction]: ...

    def __call__(self, images: Any, *, order: str = "RGB") -> Prediction | list[Prediction]:
        """Predict one image or a list of them.

        Args:
            images: a file name, an (H, W, 3) uint8 array, Pillow's image, or a list of these.
            order: of the arrays' channels: "RGB", or "BGR" as OpenCV reads them.

        Returns:
            A prediction, or a list of them for a list.

        Raises:
            DatasetError: an unreadable file.
            ValueError: an array that is no image.
        """
        if isinstance(images, (str, Path, np.ndarray, Image.Image)):
            return self.predict([self._picture(images, order)])[0]
        pictures = (self._picture(image, order) for image in images)
        return [prediction for batch in self._batches(pictures) for prediction in batch]

    def predict(
        self, pictures: Sequence[Picture], samples: Sequence[dict[str, Any]] | None = None
    ) -> list[Prediction]:
        """Predict images that were read already, at once.

        Args:
            pictures: the images.
            samples: of :meth:`sample`, where they were made already.
        """
        outputs = self.outputs(pictures, samples=samples)
        is_raw = self.preparation.image_format == "raw"
        return [
            Prediction.from_output(
                output,
                picture.image,
                self.labels,
                self.min_score,
                gaps=picture.gaps,
                values=picture.pixels if is_raw else None,
            )
            for output, picture in zip(outputs, pictures, strict=True)
        ]

    @torch.no_grad()
    def outputs(
        self,
        pictures: Sequence[Picture],
        *,
        resize: bool = True,
        samples: Sequence[dict[str, Any]] | None = None,
    ) -> list[dict[str, Any]]:
        """The model's own outputs, at the size of each image.

        Images are predicted together where they have the same size: padding one to the size of
        another would change its result.

        Args:
            pictures: the images.
            resize: bring them to the size that ``INPUT`` says; False takes them as they are.
            samples: of :meth:`sample`, where they were made already.

        Raises:
            PredictionError: `resize` is False, and test-time augmentation resizes.
        """
        if samples is None:
            samples = [self.sample(picture, resize=resize) for picture in pictures]
        if not resize and isinstance(self.model, TestTimeAugmentation) and self.model.resizes:
            raise PredictionError(
                "TEST.AUG.MIN_SIZES resizes every window, and windows are shown at the image's own "
                'resolution: set TEST.AUG.MIN_SIZES "(0,)" for mirror images alone, or '
                "TEST.AUG.ENABLED False"
            )
        results: list[dict[str, Any]] = []
        half = torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"
        )
        with half:
            for _, group in groupby(samples, lambda sample: sample["image"].shape):
                results += self.model(list(group))
        return results

    def sample(self, picture: Picture, *, resize: bool = True) -> dict[str, Any]:
        """What the model takes of an image: ``image`` (C, H', W'), ``height`` and ``width``."""
        return {
            "image": self.preparation.tensor(picture.pixels, resize=resize),
            "height": picture.image.shape[0],
            "width": picture.image.shape[1],
        }

    def _batches(self, pictures: Iterator[Picture]) -> Iterator[list[Prediction]]:
        batch: list[Picture] = []
        for picture in pictures:
            batch.append(picture)
            if len(batch) == self.batch_size:
                yield self.predict(batch)
                batch = []
        if batch:
            yield self.predict(batch)

    def _picture(self, image: ImageLike, order: str) -> Picture:
        if isinstance(image, (str, Path)):
            return self.preparation.read(image)
        if isinstance(image, Image.Image):
            return self.preparation.from_pillow(image)
        return self.preparation.from_array(np.asarray(image), order)


def _identity(cfg: CfgNode, weights: str | Path, kind: str) -> str:
    """A digest of the configuration, of the state of the weights' file and of how it is run."""
    file = Path(weights)
    state = (file.stat().st_size, file.stat().st_mtime_ns) if file.is_file() else ()
    test = (cfg.TEST.AUG.dump(), str(cfg.TEST.DETECTIONS_PER_IMAGE))
    parts = (cfg.MODEL.dump(), cfg.INPUT.dump(), *test, str(state), kind)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
