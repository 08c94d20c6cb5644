"""What an exporter needs of a system: a graph of tensors, inputs to try it on, and the way back.

A :class:`TensorSystem` of each family says how the system looks as a function of tensors, writes
itself, and turns a file's outputs into the system's own (Detectron2's format), so that whatever
runs the file, the same evaluators judge it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN, build_model
from torch import Tensor, nn

from ..config import ConfigError
from ..data.datasets.shapes_scene import make_scene
from ..modeling.meta_arch.one_stage import OneStageInstanceSegmentor
from ..modeling.meta_arch.panoptic_bottom_up import BottomUpPanopticSegmentor
from ..modeling.meta_arch.semantic import SemanticSystem
from ..modeling.sem_seg_heads.segnet import SemSegSegNetHead
from ..runtime.results import mask_threshold, system_output
from . import instances, semantic, windows
from .onnx_file import write_onnx
from .panoptic import is_panoptic
from .pooling import Follower, Positions

Outputs = dict[str, Tensor]
Change = Callable[[nn.Module], nn.Module]


def _unchanged(graph: nn.Module) -> nn.Module:
    return graph


class TensorSystem:
    """A system as a function of one tensor.

    Attributes:
        task: ``sem_seg``, ``instances`` or ``panoptic``.
        names: of the outputs, in the order of the graph's.
        examples: inputs on which a file is compared with the system; the second one is traced.
        batched: the input is (N, C, H, W), with N free; else (C, H, W).
    """

    task: str
    names: tuple[str, ...]
    examples: list[Tensor]
    batched: bool
    #: From which probability a pixel belongs to a mask.
    mask_threshold = 0.5

    def __init__(self, cfg: CfgNode, model: nn.Module) -> None:
        self.cfg, self.model = cfg, model

    @property
    def graph(self) -> nn.Module:
        """What is exported."""
        raise NotImplementedError

    def write_onnx(self, path: Path, opset: int, change: Change = _unchanged) -> None:
        """Write the ONNX file without metadata; `change`: of the graph."""
        raise NotImplementedError

    def write_torchscript(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write the TorchScript file."""
        raise NotImplementedError

    @torch.no_grad()
    def reference(self, images: Tensor) -> Outputs:
        """The system's own outputs, as the file gives them."""
        raise NotImplementedError

    def result(self, found: Outputs, sample: dict[str, Any]) -> dict[str, Any]:
        """The system's output for one image, of what a file gives of it.

        Args:
            found: the file's outputs for the image of `sample`.
            sample: see the system's ``forward``.
        """
        image = {name: of_all[0] for name, of_all in found.items()} if self.batched else found
        return system_output(self.model, image, sample)

    def following(
        self, positions: Callable[[Tensor], Positions], follower: Follower
    ) -> Callable[[Tensor], Outputs]:
        """:meth:`reference` with a SegNet's maxima where the file has them."""

        def run(images: Tensor) -> Outputs:
            with follower.following(positions(images)):
                return self.reference(images)

        return run


class Semantic(TensorSystem):
    """``images`` (N, C, H, W) to ``logits`` (N, K, H, W)."""

    names = ("logits",)
    task, batched = "sem_seg", True

    def __init__(self, cfg: CfgNode, model: SemanticSystem) -> None:
        super().__init__(cfg, semantic.prepare(model))
        # Odd and even sides; FCN with little padding takes no smaller images.
        height, width = windows.size_of(model)
        sizes = [
            (1, height + 1, width + 15),
            (2, height + 32, width + 64),
            (1, height + 96, width + 89),
        ]
        self.examples = [example_images(cfg, *size) for size in sizes]
        self.unpools = isinstance(model.sem_seg_head, SemSegSegNetHead)

    @property
    def graph(self) -> nn.Module:
        """See :func:`~.windows.graph_of`."""
        return windows.graph_of(self.model).eval()

    def write_onnx(self, path: Path, opset: int, change: Change = _unchanged) -> None:
        """With symbolic N, H and W."""
        write_onnx(change(self.graph), self.examples[1], path, self.names, opset)

    def write_torchscript(self, path: Path, metadata: Mapping[str, str]) -> None:
        """The network traced, what depends on sizes compiled."""
        module = windows.script_of(self.model)
        torch.jit.save(torch.jit.script(module.eval()), path, _extra_files=dict(metadata))

    @torch.no_grad()
    def reference(self, images: Tensor) -> Outputs:
        """As evaluation gets them."""
        outputs = self.model([{"image": image} for image in images])
        return {"logits": torch.stack([output["sem_seg"] for output in outputs])}


class BottomUp(TensorSystem):
    """``images`` (N, C, H, W) to ``logits``, ``heatmaps`` (N, 1, H, W), ``offsets`` (N, 2, ...)."""

    names = ("logits", "heatmaps", "offsets")
    task, batched = "panoptic", True

    def __init__(self, cfg: CfgNode, model: BottomUpPanopticSegmentor) -> None:
        super().__init__(cfg, semantic.prepare(model))
        self.examples = [
            example_images(cfg, *s) for s in ((1, 65, 79), (2, 96, 128), (1, 160, 153))
        ]

    @property
    def graph(self) -> nn.Module:
        """See :class:`~.semantic.CenterGraph`."""
        return semantic.CenterGraph(self.model).eval()

    def write_onnx(self, path: Path, opset: int, change: Change = _unchanged) -> None:
        """With symbolic N, H and W."""
        write_onnx(change(self.graph), self.examples[1], path, self.names, opset)

    @torch.no_grad()
    def reference(self, images: Tensor) -> Outputs:
        """The graph's, whose parts are the system's."""
        return dict(zip(self.names, self.graph(images), strict=True))


class Regions(TensorSystem):
    """``image`` (C, H, W) to instances, and of a panoptic system ``logits`` (K, H, W)."""

    batched = False

    def __init__(self, cfg: CfgNode, model: nn.Module) -> None:
        super().__init__(cfg, model)
        self.task = "panoptic" if is_panoptic(model) else "instances"
        self.examples = [
            example_images(cfg, 1, *size)[0] for size in ((128, 128), (160, 121), (97, 224))
        ]
        self.one_stage = isinstance(model, OneStageInstanceSegmentor)
        self.mask_threshold = mask_threshold(model)
        self.original = self._graph_of(model)
        self.names = self.original.names

    @property
    def graph(self) -> nn.Module:
        """Of standard operators alone."""
        return self.original if self.one_stage else self._graph_of(self._with_plain_poolers())

    def _graph_of(self, model: nn.Module) -> Any:
        if self.one_stage:
            return instances.OneStageGraph(model, self.examples[0]).eval()
        return instances.RCNNGraph(model).eval()

    def _with_plain_poolers(self) -> nn.Module:
        """The same weights on Detectron2's poolers, which go level by level."""
        if self.cfg.MODEL.get("ROI_POOLER", "") != "fused":
            return self.model
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.MODEL.ROI_POOLER = "detectron2"
        plain = build_model(cfg)
        plain.load_state_dict(self.model.state_dict())
        return plain.eval()

    def write_onnx(self, path: Path, opset: int, change: Change = _unchanged) -> None:
        """Traced, with free height, width and number of instances."""
        instances.write_instances_onnx(change(self.graph), self.examples[1], path, opset)

    def write_torchscript(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Traced."""
        instances.write_torchscript(self.graph, self.examples[1], path, metadata)

    @torch.no_grad()
    def reference(self, images: Tensor) -> Outputs:
        """With the system's own pooler."""
        return dict(zip(self.names, self.original(images), strict=True))


def tensor_system(cfg: CfgNode, model: nn.Module, kind: str) -> TensorSystem:
    """The family of a system.

    Raises:
        ConfigError: no file of that format holds it.
    """
    if isinstance(model, BottomUpPanopticSegmentor):
        system: TensorSystem = BottomUp(cfg, model)
    elif isinstance(model, SemanticSystem):
        system = Semantic(cfg, model)
    elif isinstance(model, GeneralizedRCNN | OneStageInstanceSegmentor):
        system = Regions(cfg, model)
    else:
        raise ConfigError(
            f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE}: the {kind} format takes "
            "semantic systems, Mask R-CNN, one-stage and panoptic systems of this package. "
            "--format safetensors takes every model."
        )
    if kind == "torchscript" and isinstance(system, BottomUp):
        raise ConfigError(
            f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE}: bottom-up systems are "
            "exported as ONNX and OpenVINO: use --format onnx or openvino"
        )
    return system


def example_images(cfg: CfgNode, count: int, height: int, width: int) -> Tensor:
    """(N, C, H, W) float32 scenes of shapes in raw range, the same each time."""
    rng = np.random.default_rng(0)
    side = max(height, width)
    channels = len(cfg.MODEL.PIXEL_MEAN)
    scenes = [make_scene(rng, side).image[:height, :width] for _ in range(count)]
    images = torch.from_numpy(np.stack(scenes)).permute(0, 3, 1, 2).float()
    return images[:, torch.arange(channels) % 3].contiguous()
