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
from ..modeling.meta_arch.panoptic_output import PanopticOutput
from .onnx_file import onnx_package
from .verify import ExportError

OUTPUTS = ("boxes", "scores", "classes", "masks")


class RCNNGraph(nn.Module):
    """(C, H, W) raw image to boxes (n, 4) x0, y0, x1, y1 in its pixels, scores, classes, masks.

    ``masks`` are (n, M, M) probabilities inside each box (M is 28 with FPN), as the network gives
    them, before they are painted into the image; a system without masks gives three outputs. A
    panoptic one gives ``logits`` (K, H, W) of its semantic labels, too.
    """

    def __init__(self, model: GeneralizedRCNN) -> None:
        super().__init__()
        self.model = model
        self.with_masks = bool(getattr(model.roi_heads, "mask_on", False))
        self.with_labels = isinstance(model, PanopticOutput)
        self.names = OUTPUTS[: 4 if self.with_masks else 3]
        self.names += ("logits",) if self.with_labels else ()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """One image."""
        found = self.model.inference([{"image": image}], do_postprocess=False)
        instances, logits = (found[0][0], found[1][0]) if self.with_labels else (found[0], None)
        fields = instances.get_fields()
        outputs = [fields["pred_boxes"].tensor, fields["scores"], fields["pred_classes"]]
        if self.with_masks:
            outputs.append(fields["pred_masks"][:, 0])
        if logits is not None:
            outputs.append(_of_image(logits, image))
        return tuple(outputs)


class OneStageGraph(nn.Module):
    """(C, H, W) raw image to scores, classes, boxes in its pixels, and masks.

    The masks are what the representation's :class:`MaskForm` gives of them: ``masks`` (n, H, W)
    probabilities, or ``outlines`` (n, R, 2) x, y. A panoptic system gives ``logits`` (K, H, W) of
    its semantic labels, too.
    """

    def __init__(self, model: OneStageInstanceSegmentor, example: Tensor) -> None:
        super().__init__()
        self.model = model
        with torch.no_grad():
            self.names = ("scores", "classes", *self._tensors(example)[1])

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """One image."""
        found, tensors = self._tensors(image)
        return (found.scores, found.pred_classes, *tensors.values())

    def _tensors(self, image: Tensor) -> tuple[Instances, dict[str, Tensor]]:
        model = self.model
        images = model.preprocess_image([{"image": image}])
        features = model.backbone(images.tensor)
        if not isinstance(model, PanopticOutput):
            found = model.find(images, features)[0]
            return found, self._masks(found, image)
        (found,), (logits,) = model.find_both(images, features)
        return found, {**self._masks(found, image), "logits": _of_image(logits, image)}

    @staticmethod
    def _masks(found: Instances, image: Tensor) -> dict[str, Tensor]:
        return dict(found.pred_masks.tensors(image.shape[-2], image.shape[-1]))


def _of_image(logits: Tensor, image: Tensor) -> Tensor:
    """(K, h, w) logits of the padded image, without the padding."""
    return logits[:, : image.shape[-2], : image.shape[-1]].float()


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
    graph: RCNNGraph | OneStageGraph, example: Tensor, path: Path, opset: int
) -> None:
    """Write ``path`` with the input ``image`` and free height, width and number of instances.

    Raises:
        ExportError: onnx is not installed, or PyTorch could not follow the network.
    """
    onnx_package()
    dynamic = {"image": {1: "height", 2: "width"}}
    for name in graph.names:
        dynamic[name] = {1: "height", 2: "width"} if name == "logits" else {0: "count"}
    try:
        with _traceable():
            torch.onnx.export(
                graph,
                (example,),
                str(path),
                dynamo=False,
                opset_version=opset,
                input_names=["image"],
                output_names=list(graph.names),
                dynamic_axes=dynamic,
            )
    except RuntimeError as error:  # OnnxExporterError is one
        raise ExportError(f"the ONNX export failed: {error}") from error
