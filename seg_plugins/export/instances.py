"""Systems of instances as functions of one image: traced, for TorchScript and ONNX.

Detectron2's own ``detectron2.export`` (0.6) imports caffe2, which PyTorch no longer has. What its
tracing needs of it is small: a module of tensors, and ``len()`` of instances that tracing can
follow. Pooling runs level by level on the standard operator, since neither format has one for a
whole pyramid; the results are those of this package's pooler.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.roi_heads import fast_rcnn, keypoint_head, mask_head
from detectron2.structures import Instances
from torch import Tensor, nn

from ..modeling.meta_arch.one_stage import OneStageInstanceSegmentor
from .onnx_file import onnx_package
from .verify import ExportError

OUTPUTS = ("boxes", "scores", "classes", "masks")
_OPSET = 17


class RCNNGraph(nn.Module):
    """(C, H, W) raw image to boxes (n, 4) x0, y0, x1, y1 in its pixels, scores, classes, masks.

    ``masks`` are (n, M, M) probabilities inside each box (M is 28 with FPN), as the network gives
    them, before they are painted into the image; a system without masks gives three outputs.
    """

    def __init__(self, model: GeneralizedRCNN) -> None:
        super().__init__()
        self.model = model
        self.names = OUTPUTS if getattr(model.roi_heads, "mask_on", False) else OUTPUTS[:3]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """One image."""
        fields = self.model.inference([{"image": image}], do_postprocess=False)[0].get_fields()
        found = (fields["pred_boxes"].tensor, fields["scores"], fields["pred_classes"])
        return (*found, fields["pred_masks"][:, 0]) if len(self.names) == 4 else found


class OneStageGraph(nn.Module):
    """(C, H, W) raw image to scores, classes, boxes in its pixels, and masks.

    The masks are what the representation's :class:`MaskForm` gives of them: ``masks`` (n, H, W)
    probabilities, or ``outlines`` (n, R, 2) x, y.
    """

    def __init__(self, model: OneStageInstanceSegmentor, example: Tensor) -> None:
        super().__init__()
        self.model = model
        with torch.no_grad():
            self.names = ("scores", "classes", *self._masks(self._found(example), example))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """One image."""
        found = self._found(image)
        return (found.scores, found.pred_classes, *self._masks(found, image).values())

    def _found(self, image: Tensor) -> Instances:
        images = self.model.preprocess_image([{"image": image}])
        return self.model.find(images, self.model.backbone(images.tensor))[0]

    def _masks(self, found: Instances, image: Tensor) -> dict[str, Tensor]:
        return found.pred_masks.tensors(image.shape[-2], image.shape[-1])


@contextlib.contextmanager
def _traceable() -> Iterator[None]:
    """Let tracing see the number of instances: ``len()`` would turn it into a constant."""
    modules: list[Any] = [fast_rcnn, keypoint_head, mask_head]
    for module in modules:
        module.len = lambda sized: sized.__len__()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        for module in modules:
            del module.len


def write_torchscript(
    graph: RCNNGraph | OneStageGraph, example: Tensor, path: Path, metadata: Mapping[str, str]
) -> None:
    """Trace and save; running the file needs ``import torchvision`` for its operators."""
    with _traceable():
        traced = torch.jit.trace(graph, (example,), check_trace=False)
    torch.jit.save(traced, path, _extra_files=dict(metadata))


def write_instances_onnx(
    graph: RCNNGraph | OneStageGraph, example: Tensor, path: Path, metadata: Mapping[str, str]
) -> None:
    """Write ``path`` with the input ``image`` and free height, width and number of instances.

    Raises:
        ExportError: onnx is not installed, or PyTorch could not follow the network.
    """
    onnx = onnx_package()
    dynamic = {"image": {1: "height", 2: "width"}} | {name: {0: "count"} for name in graph.names}
    try:
        with _traceable():
            torch.onnx.export(
                graph,
                (example,),
                str(path),
                dynamo=False,
                opset_version=_OPSET,
                input_names=["image"],
                output_names=list(graph.names),
                dynamic_axes=dynamic,
            )
    except RuntimeError as error:  # OnnxExporterError is one
        raise ExportError(f"the ONNX export failed: {error}") from error
    model = onnx.load(path)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, path)
