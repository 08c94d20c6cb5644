"""A system with test-time augmentation, as ``TEST.AUG`` says: Detectron2's keys."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    GeneralizedRCNN,
    PanopticFPN,
    SemanticSegmentor,
)
from torch import nn

from ...config import ConfigError
from .probabilities import predict_classes
from .regions import predict_regions
from .views import Views


class TestTimeAugmentation(nn.Module):
    """A system that is shown several sizes and mirror images of each image.

    Inputs and outputs are the system's own at inference. Images are taken one by one, and so are
    their views: memory is that of the largest view.

    Args:
        model: has ``predict_views``, which takes :class:`~.views.Views` of one image and gives what
            the model gives for an image; or is Detectron2's ``SemanticSegmentor`` or
            ``GeneralizedRCNN``.
        min_sizes: see :class:`~.views.Views`, and so are those below.
        max_size: the same.
        flip: the same.
        overlap_threshold: the same.
        detections: the same.
    """

    __test__ = False  # no case for pytest, whatever its name

    def __init__(
        self,
        model: nn.Module,
        *,
        min_sizes: tuple[int, ...],
        max_size: int,
        flip: bool,
        overlap_threshold: float = 0.5,
        detections: int = 100,
    ) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        self.options: dict[str, Any] = {
            "min_sizes": tuple(min_sizes),
            "max_size": max_size,
            "flip": flip,
            "overlap_threshold": overlap_threshold,
            "detections": detections,
        }
        if hasattr(model, "alignment"):
            self.alignment = model.alignment

    @property
    def resizes(self) -> bool:
        """Whether a view has another size than the image."""
        return any(self.options["min_sizes"])

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One dict per image, as the model's at inference."""
        return [self._predict(Views(sample, **self.options)) for sample in batched_inputs]

    def _predict(self, views: Views) -> dict[str, Any]:
        if hasattr(self.model, "predict_views"):
            return self.model.predict_views(views)
        if isinstance(self.model, GeneralizedRCNN):
            return predict_regions(self.model, views)
        return predict_classes(self.model, views)


def with_test_time_augmentation(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """The model as ``TEST.AUG`` wants it for evaluation and prediction; itself where it is off.

    Args:
        cfg: the configuration of the model.
        model: it, or what distributes it to several processes, which is left aside.

    Raises:
        ConfigError: see :func:`check_test_time_augmentation`.
    """
    if not cfg.TEST.AUG.ENABLED:
        return model
    check_test_time_augmentation(cfg)
    model = getattr(model, "module", model)
    augmentation = cfg.TEST.AUG
    return TestTimeAugmentation(
        model,
        min_sizes=tuple(augmentation.MIN_SIZES),
        max_size=augmentation.MAX_SIZE,
        flip=augmentation.FLIP,
        overlap_threshold=cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST,
        detections=cfg.TEST.DETECTIONS_PER_IMAGE,
    )


def check_test_time_augmentation(cfg: CfgNode) -> None:
    """Check that ``TEST.AUG`` can be had with the system.

    Raises:
        ConfigError: a size that is none, or no rule puts the views of this system together.
    """
    if not cfg.TEST.AUG.ENABLED:
        return
    sizes = cfg.TEST.AUG.MIN_SIZES
    if not sizes or not all(isinstance(size, int) and size >= 0 for size in sizes):
        raise ConfigError(
            f"TEST.AUG.MIN_SIZES {tuple(sizes)} should be the shorter side of each view in pixels, "
            'or 0 for the image as INPUT brings it, e.g. TEST.AUG.MIN_SIZES "(400, 800)"'
        )
    if cfg.TEST.AUG.MAX_SIZE < 1:
        raise ConfigError(
            f"TEST.AUG.MAX_SIZE {cfg.TEST.AUG.MAX_SIZE} should be the longest side of a view in "
            "pixels, e.g. TEST.AUG.MAX_SIZE 4000"
        )
    name = cfg.MODEL.META_ARCHITECTURE
    system = META_ARCH_REGISTRY.get(name)
    own = getattr(system, "predict_views", None)
    kind = system if isinstance(system, type) else object
    of_detectron2 = issubclass(kind, (GeneralizedRCNN, SemanticSegmentor)) and not issubclass(
        kind, PanopticFPN
    )
    if own is None and not of_detectron2:
        raise ConfigError(
            f"TEST.AUG.ENABLED True: no rule puts the views of MODEL.META_ARCHITECTURE {name} "
            "together. Set TEST.AUG.ENABLED False; a system of your own says how in a method "
            "predict_views (docs/extending.md)"
        )
    for key in ("KEYPOINT_ON", "LOAD_PROPOSALS"):
        if issubclass(kind, GeneralizedRCNN) and cfg.MODEL[key]:
            raise ConfigError(
                f"TEST.AUG.ENABLED True does not go with MODEL.{key} True: set one of them False"
            )
