"""From a trained system to a file of another format, checked before it is handed out."""

from __future__ import annotations

import json
import logging
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from ..config import ConfigError, load_config
from ..engine.checkpoint import Checkpointer
from ..io.files import write_atomically, write_digest
from ..io.weights import WeightsError, read_safetensors, safetensors_bytes
from ..modeling.meta_arch.semantic import SemanticSystem
from ..runtime.openvino_model import FIRST_OF_EQUALS
from . import half, onnx_file, pooling
from .metadata import file_metadata
from .metric import METRIC_TOLERANCE, MetricCheck, Metrics, require
from .openvino_file import divide_exactly, openvino_runner, write_openvino
from .panoptic import FILE, TOLERANCE, differing_share, merging_module, merging_settings
from .quantize import quantize
from .systems import Semantic, TensorSystem, tensor_system
from .verify import (
    Check,
    ExportError,
    Runner,
    compare,
    compare_loosely,
    onnx_runner,
    torchscript_runner,
)

#: Images that INT8 is calibrated on, evenly spread over the dataset.
CALIBRATION_IMAGES = 64

logger = logging.getLogger(__name__)

FORMATS = {
    "onnx": ".onnx", "openvino": ".xml", "torchscript": ".pt", "safetensors": ".safetensors",
}  # fmt: skip


@dataclass(frozen=True)
class ExportOptions:
    """How a file is made.

    Attributes:
        opset: version of ONNX's operators; None takes the lowest that the system needs.
        float16: the layers compute in float16.
        int8: name of a dataset whose images the quantisation to INT8 is calibrated on.
        max_loss: points that a main metric may fall by INT8.
        verify_on: name of a validation set on which file and model must have the same metric;
            of INT8 the default is the dataset that it is calibrated on.
    """

    opset: int | None = None
    float16: bool = False
    int8: str = ""
    max_loss: float = 0.5
    verify_on: str = ""


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Attributes:
        path: the file.
        checks: its comparisons with the system.
        metrics: of file and model on the validation set, where one was named.
        files: everything that was written, `path` among it.
    """

    path: Path
    checks: tuple[Check, ...]
    metrics: tuple[MetricCheck, ...] = ()
    files: tuple[Path, ...] = ()


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
    options: ExportOptions | None = None,
    *,
    report: Callable[[str], None] = logger.info,
) -> ExportResult:
    """Write ``folder/model.<suffix>`` and compare it with the model on three image sizes.

    Beside it lie its SHA-256 (``.sha256``), the weights where the format or their size wants it,
    and of a panoptic system ``panoptic.py``, the merging of its outputs.

    Args:
        cfg: the model's configuration.
        model: a system of this package, or a Mask R-CNN of Detectron2 that tracing can follow.
        kind: one of ``FORMATS``.
        folder: made if it does not exist.
        options: see :class:`ExportOptions`.
        report: gets a line for each comparison.

    Raises:
        ConfigError: an unknown format or option, or a system or inference mode that it cannot
            hold.
        ExportError: the export failed, or the file's results differ; no file is left then.
    """
    options = options or ExportOptions()
    if kind not in FORMATS:
        raise ConfigError(f"format '{kind}' is not one of {', '.join(FORMATS)}")
    _check_options(kind, options)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"model{FORMATS[kind]}"
    # Nothing with the final name exists before its checks have passed.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export.") as scratch:
        draft = Path(scratch) / "files" / path.name
        draft.parent.mkdir()
        metrics: list[MetricCheck] = []
        if kind == "safetensors":
            checks = list(_safetensors(cfg, model, draft))
        else:
            export = _Export(cfg, tensor_system(cfg, model, kind), kind, draft, options, report)
            export.write()
            checks = list(export.checks())
            metrics = export.metrics()
        for file in list(draft.parent.iterdir()):
            write_digest(file)
        files = [file.replace(folder / file.name) for file in sorted(draft.parent.iterdir())]
    if checks and not any(check.count for check in checks):
        report(
            f"{path}: the model finds nothing in the made pictures it was compared on, so that "
            "only the shapes of its outputs were: compare the file on images of your own, by "
            "--verify-on."
        )
    return ExportResult(path, tuple(checks), tuple(metrics), tuple(files))


def _check_options(kind: str, options: ExportOptions) -> None:
    if kind not in ("onnx", "openvino") and (
        options.float16 or options.int8 or options.opset is not None
    ):
        raise ConfigError(
            f"--format {kind} has no --opset, --float16 or --int8: use --format onnx or openvino"
        )
    if options.float16 and options.int8:
        raise ConfigError("--float16 and --int8 exclude each other: export two files")
    if kind == "safetensors" and options.verify_on:
        raise ConfigError(
            "--format safetensors holds the weights themselves: --verify-on is for the others"
        )


class _Export:
    """One file on its way."""

    def __init__(
        self,
        cfg: CfgNode,
        system: TensorSystem,
        kind: str,
        path: Path,
        options: ExportOptions,
        report: Callable[[str], None],
    ) -> None:
        self.cfg, self.system, self.kind, self.path = cfg, system, kind, path
        self.options, self.report = options, report
        # The ONNX file, from which OpenVINO's is made: outside of the folder that is handed out.
        self.onnx = path if kind == "onnx" else path.parent.parent / "model.onnx"
        self.opset = self._opset()
        # An unknown dataset is said before the work.
        judged = options.verify_on or options.int8
        self.judge = Metrics(cfg, system, judged) if judged else None

    def _opset(self) -> int:
        batched = self.system.batched
        default = onnx_file.BATCHED_OPSET if batched else onnx_file.REGIONS_OPSET
        opset = self.options.opset or default
        onnx_file.check_opset(opset, batched)
        return opset

    @property
    def metadata(self) -> dict[str, str]:
        system = self.system
        more: dict[str, Any] = {}
        if system.task == "sem_seg":
            more["alignment"] = system.model.alignment
        else:
            more["mask_threshold"] = system.mask_threshold
        if getattr(system.model, FIRST_OF_EQUALS, False):
            more[FIRST_OF_EQUALS] = True
        if system.task == "panoptic":
            more["panoptic"] = merging_settings(system.model, system.names, system.mask_threshold)
        precision = "float16" if self.options.float16 else "float32"
        return file_metadata(self.cfg, system.task, precision=precision, **more)

    def write(self) -> None:
        """Write the file, and what lies beside it."""
        if self.kind == "torchscript":
            self.system.write_torchscript(self.path, self.metadata)
        else:
            change = half.halved if self.options.float16 else lambda graph: graph
            if self.options.float16:
                half.check_range(self.system, self._images(self.judge))
            self.system.write_onnx(self.onnx, self.opset, change)
            graph = onnx_file.suppress_as_torch(onnx_file.load_onnx(self.onnx))
            if self.kind == "openvino":
                graph = divide_exactly(graph)
            onnx_file.save_onnx(graph, self.onnx, self.metadata)
            self._convert()
        if self.kind == "onnx":
            oldest = onnx_file.OLDEST_RUNTIME[self.opset]
            self.report(f"opset {self.opset}: onnxruntime {oldest} or newer runs the file")
        if self.system.task == "panoptic":
            source = merging_module(self.system.names).__file__
            shutil.copyfile(source, self.path.with_name(FILE))

    def _convert(self) -> None:
        if self.kind == "openvino":
            metadata = onnx_file.metadata_of(onnx_file.load_onnx(self.onnx))
            write_openvino(self.onnx, self.path, metadata, self.system.names)

    def _images(self, judge: Metrics | None, count: int = 16) -> list[torch.Tensor]:
        """Of a dataset, as the system takes them."""
        if judge is None:
            return []
        images = (sample["image"].float() for sample in judge.samples(count))
        return [image[None] if self.system.batched else image for image in images]

    @property
    def run(self) -> Runner:
        """The file."""
        if self.kind == "torchscript":
            return torchscript_runner(self.path, self.system.names)
        return onnx_runner(self.path) if self.kind == "onnx" else openvino_runner(self.path)

    def checks(self) -> Iterator[Check]:
        """Compare file and system on the examples."""
        run = self.run
        for check in self._comparisons(run):
            self.report(str(check))
            yield check
        if self.system.task == "panoptic":
            for images in self.system.examples:
                yield self._merging(run, images)

    def _comparisons(self, run: Runner) -> Iterator[Check]:
        system = self.system
        if self.options.float16:
            yield from compare_loosely(run, system.reference, system.examples)
        elif isinstance(system, Semantic) and system.unpools:
            follower = pooling.Follower(system.model)
            positions = {
                "onnx": pooling.onnx_positions,
                "openvino": lambda _: pooling.onnx_positions(self.onnx, pooling.openvino_session),
                "torchscript": pooling.torchscript_positions,
            }[self.kind](self.path)
            following = system.following(positions, follower)
            for check in compare(run, following, system.examples):
                yield replace(check, elsewhere=follower.elsewhere)
        else:
            yield from compare(run, system.reference, system.examples)

    def _merging(self, run: Runner, images: torch.Tensor) -> Check:
        """The function beside the file on what the file gives, compared with the system."""
        system = self.system
        settings = json.loads(self.metadata["panoptic"])
        outputs = {
            name: value.numpy()
            for name, value in run(images[:1] if system.batched else images).items()
        }
        if system.batched:
            outputs = {name: value[0] for name, value in outputs.items()}
        found = merging_module(system.names).panoptic(outputs, settings)
        with torch.no_grad():
            sample = {"image": images[0] if system.batched else images}
            ids, segments = system.model([sample])[0]["panoptic_seg"]
        share = differing_share(found, (ids.numpy(), segments))
        check = Check(tuple(images.shape), {FILE: share}, ids.numel())
        self.report(f"{check.size}: {FILE} puts {share:.3%} of the pixels into other segments")
        allowed = 0.02 if self.options.float16 else TOLERANCE
        if not share <= allowed:
            raise ExportError(
                f"{FILE} on the exported file's outputs disagrees with the model: {share:.3%} of "
                f"the pixels are in other segments; {allowed:.3%} is allowed"
            )
        return check

    def metrics(self) -> list[MetricCheck]:
        """Compare file and model on the validation set."""
        judge = self.judge
        if judge is None:
            return []
        if self.options.int8:
            return self._quantized(judge)
        checks = judge.compare(self.run)
        require(checks, METRIC_TOLERANCE, self.report, "No file is left.")
        return checks

    def _quantized(self, judge: Metrics) -> list[MetricCheck]:
        """The file in INT8, whose float32 version has passed its checks."""
        options = self.options
        source = judge
        if options.int8 != judge.dataset:
            source = Metrics(self.cfg, self.system, options.int8)
        images = self._images(source, CALIBRATION_IMAGES)
        self.report(f"INT8: calibrated on {len(images)} images of {options.int8}")
        before = _milliseconds(self.run, images)

        def measure(draft: Path) -> list[MetricCheck]:
            if self.kind == "onnx":
                return judge.compare(onnx_runner(draft))
            return judge.compare(openvino_runner(draft.read_bytes(), draft.name))

        found = quantize(self.onnx, images, measure, options.max_loss, self.report)
        self._convert()
        after = _milliseconds(self.run, images)
        self.report(
            f"median of an image on {torch.get_num_threads()} thread(s): {before:.1f} ms in "
            f"float32, {after:.1f} ms in INT8"
        )
        return list(found.metrics)


def _milliseconds(run: Runner, images: Sequence[torch.Tensor]) -> float:
    """Median time of an image, after one that does not count."""
    run(images[0])
    times = []
    for image in images[:16]:
        start = time.perf_counter()
        run(image)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


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
