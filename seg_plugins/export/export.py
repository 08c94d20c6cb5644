"""From a trained system to a file of another format, checked before it is handed out."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN, build_model
from torch import Tensor, nn

from ..config import ConfigError, load_config
from ..data.datasets.shapes_scene import make_scene
from ..engine.checkpoint import Checkpointer
from ..io.files import write_atomically
from ..io.weights import WeightsError, read_safetensors, safetensors_bytes
from ..modeling.meta_arch.one_stage import OneStageInstanceSegmentor
from ..modeling.meta_arch.panoptic import PanopticMerging
from ..modeling.meta_arch.semantic import SemanticSystem
from ..modeling.sem_seg_heads.segnet import SemSegSegNetHead
from . import instances, pooling, semantic
from .metadata import file_metadata
from .onnx_file import write_onnx
from .verify import Check, ExportError, compare, onnx_runner, torchscript_runner

logger = logging.getLogger(__name__)

FORMATS = {"onnx": ".onnx", "torchscript": ".pt", "safetensors": ".safetensors"}


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Attributes:
        path: the file.
        checks: its comparisons with the system.
    """

    path: Path
    checks: tuple[Check, ...]


def load_for_export(
    config: str, weights: str, opts: Sequence[str] = ()
) -> tuple[CfgNode, nn.Module]:
    """Configuration and model with its weights, on the CPU.

    Raises:
        ConfigError: the configuration is wrong.
        WeightsError: no weights are named, they cannot be read, or are not the whole model.
    """
    cfg = load_config(config, opts)
    if cfg.TEST.AUG.ENABLED:
        raise ConfigError(
            "TEST.AUG.ENABLED True: a file holds the system, and test-time augmentation is a loop "
            "around it. Add TEST.AUG.ENABLED False."
        )
    cfg.MODEL.DEVICE, cfg.MODEL.TIMM.PRETRAINED = "cpu", False
    cfg.MODEL.WEIGHTS = weights or cfg.MODEL.WEIGHTS
    if not cfg.MODEL.WEIGHTS:
        raise WeightsError("no weights to export: name the trained file with --weights")
    if isinstance(cfg.MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS, str):  # they serve the loss only
        cfg.MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS = None
    if cfg.MODEL.META_ARCHITECTURE in ("MaskRCNNC4", "MaskRCNNFPN"):
        cfg.MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT = "bitmask"
    model = build_model(cfg)
    checkpointer = Checkpointer(model, save_to_disk=False, image_format=cfg.INPUT.FORMAT)
    checkpointer.load(cfg.MODEL.WEIGHTS, complete=True)
    return cfg, model.eval()


def export_model(
    cfg: CfgNode,
    model: nn.Module,
    kind: str,
    folder: str | Path,
    *,
    report: Callable[[str], None] = logger.info,
) -> ExportResult:
    """Write ``folder/model.<suffix>`` and compare it with the model on three image sizes.

    Args:
        cfg: the model's configuration.
        model: a semantic system or, where tracing can follow it, a Mask R-CNN.
        kind: ``onnx``, ``torchscript`` or ``safetensors``.
        folder: made if it does not exist.
        report: gets a line for each comparison.

    Raises:
        ConfigError: an unknown format, or a system or inference mode that it cannot hold.
        ExportError: the export failed, or the file's results differ; no file is left then.
    """
    if kind not in FORMATS:
        raise ConfigError(f"format '{kind}' is not one of {', '.join(FORMATS)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"model{FORMATS[kind]}"
    # Nothing with the final name exists before its checks have passed.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export.") as scratch:
        draft = Path(scratch) / path.name
        if kind == "safetensors":
            checks = list(_safetensors(cfg, model, draft))
        elif isinstance(model, SemanticSystem):
            checks = list(_reported(_semantic(cfg, model, kind, draft), report))
        elif isinstance(model, GeneralizedRCNN | OneStageInstanceSegmentor) and not isinstance(
            model, PanopticMerging
        ):
            checks = list(_reported(_instances(cfg, model, kind, draft), report))
        else:
            raise ConfigError(
                f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE}: the {kind} format takes "
                "semantic systems, Mask R-CNN and one-stage systems. --format safetensors takes "
                "every model."
            )
        draft.replace(path)
    if checks and not any(check.count for check in checks):
        report(
            f"{path}: the model finds nothing in the made pictures it was compared on, so that "
            "only the shapes of its outputs were: compare the file on an image of your own."
        )
    return ExportResult(path, tuple(checks))


def _reported(checks: Iterator[Check], report: Callable[[str], None]) -> Iterator[Check]:
    for check in checks:
        report(str(check))
        yield check


def _semantic(cfg: CfgNode, model: SemanticSystem, kind: str, path: Path) -> Iterator[Check]:
    model = semantic.prepare(model)
    window = semantic.window_of(model)
    # Odd and even sides; FCN with little padding takes no smaller images.
    height, width = (64, 64) if window is None else window.window
    sizes = [
        (1, height + 1, width + 15),
        (2, height + 32, width + 64),
        (1, height + 96, width + 89),
    ]
    inputs = [_images(cfg, *size) for size in sizes]
    metadata = file_metadata(cfg, "sem_seg")
    if kind == "onnx":
        write_onnx(semantic.Graph(model, window).eval(), inputs[1], path, metadata)
        run, positions = onnx_runner(path), pooling.onnx_positions
    else:
        module = semantic.ScriptSlide(model, window) if window else semantic.ScriptWhole(model)
        torch.jit.save(torch.jit.script(module.eval()), path, _extra_files=metadata)
        run, positions = torchscript_runner(path, ["logits"]), pooling.torchscript_positions

    @torch.no_grad()
    def reference(images: Tensor) -> dict[str, Tensor]:
        outputs = model([{"image": image} for image in images])
        return {"logits": torch.stack([output["sem_seg"] for output in outputs])}

    if not isinstance(model.sem_seg_head, SemSegSegNetHead):
        yield from compare(run, reference, inputs)
        return
    follower, codes = pooling.Follower(model), positions(path)

    def following(images: Tensor) -> dict[str, Tensor]:
        with follower.following(codes(images)):
            return reference(images)

    for check in compare(run, following, inputs):
        yield replace(check, elsewhere=follower.elsewhere)


def _instances(cfg: CfgNode, model: nn.Module, kind: str, path: Path) -> Iterator[Check]:
    inputs = [_images(cfg, 1, *size)[0] for size in ((128, 128), (160, 121), (97, 224))]
    graph: instances.RCNNGraph | instances.OneStageGraph
    if isinstance(model, OneStageInstanceSegmentor):
        graph = original = instances.OneStageGraph(model, inputs[0]).eval()
    else:
        graph = instances.RCNNGraph(_with_plain_poolers(cfg, model)).eval()
        original = instances.RCNNGraph(model).eval()
    metadata = file_metadata(cfg, "instances")
    if kind == "onnx":
        instances.write_instances_onnx(graph, inputs[0], path, metadata)
        run = onnx_runner(path)
    else:
        instances.write_torchscript(graph, inputs[0], path, metadata)
        run = torchscript_runner(path, graph.names)

    @torch.no_grad()
    def reference(image: Tensor) -> dict[str, Tensor]:
        return dict(zip(original.names, original(image), strict=True))

    yield from compare(run, reference, inputs)


def _with_plain_poolers(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """The same weights on Detectron2's poolers, which go level by level over standard operators."""
    if cfg.MODEL.get("ROI_POOLER", "") != "fused":
        return model
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.ROI_POOLER = "detectron2"
    plain = build_model(cfg)
    plain.load_state_dict(model.state_dict())
    return plain.eval()


def _safetensors(cfg: CfgNode, model: nn.Module, path: Path) -> Iterator[Check]:
    task = "sem_seg" if isinstance(model, SemanticSystem) else "instances"
    state = model.state_dict()
    content = safetensors_bytes(state, file_metadata(cfg, task))
    write_atomically(path, lambda file: file.write(content))
    found, metadata = read_safetensors(path)
    if found.keys() != state.keys() or not all(torch.equal(found[k], v) for k, v in state.items()):
        raise ExportError(f"{path} does not give back the tensors that were written")
    json.loads(metadata["classes"])
    yield from ()


def _images(cfg: CfgNode, count: int, height: int, width: int) -> Tensor:
    """(N, C, H, W) float32 scenes of shapes in raw range, the same each time."""
    rng = np.random.default_rng(0)
    side = max(height, width)
    channels = len(cfg.MODEL.PIXEL_MEAN)
    scenes = [make_scene(rng, side).image[:height, :width] for _ in range(count)]
    images = torch.from_numpy(np.stack(scenes)).permute(0, 3, 1, 2).float()
    return images[:, torch.arange(channels) % 3].contiguous()
