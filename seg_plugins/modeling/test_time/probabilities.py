"""The mean of the class probabilities that several looks at an image give."""

from __future__ import annotations

from torch import Tensor, nn

from ..postprocessing import sem_seg_postprocess
from .views import View, Views


class MeanProbability:
    """A running mean: memory is that of one map, however many are added."""

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._count = 0

    def add(self, logits: Tensor) -> None:
        """Take in logits.

        Args:
            logits: (..., K, H, W), every time of the same size; K = 1 is a binary problem.
        """
        logits = logits.float()
        binary = logits.shape[-3] == 1
        probability = logits.sigmoid() if binary else logits.softmax(dim=-3)
        self._total = probability if self._total is None else self._total.add_(probability)
        self._count += 1

    def logits(self) -> Tensor:
        """The logarithm of the mean (K = 1: its logit), so that it is used like any logits.

        Raises:
            ValueError: nothing was added.
        """
        if self._total is None:
            raise ValueError("there is no mean of nothing: add logits first")
        mean = self._total / self._count
        return mean.logit(eps=1e-7) if mean.shape[-3] == 1 else mean.clamp(min=1e-12).log()

    def add_view(self, logits: Tensor, view: View, views: Views) -> None:
        """Take in the (K, h, w) logits of a view, padded or not, at the size of the output."""
        logits = sem_seg_postprocess(logits, view.size, views.height, views.width)
        self.add(view.upright(logits))


def predict_classes(model: nn.Module, views: Views) -> dict[str, Tensor]:
    """``sem_seg`` (K, height, width): the mean over the views of a semantic system's classes.

    Args:
        model: Detectron2's inputs and outputs; ``sem_seg`` are logits.
        views: of one image.
    """
    mean = MeanProbability()
    for view in views:
        logits = model([{**view.sample, "height": views.height, "width": views.width}])
        mean.add(view.upright(logits[0]["sem_seg"]))
    return {"sem_seg": mean.logits()}
