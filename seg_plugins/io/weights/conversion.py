"""Weights of other libraries under the names of this package's models.

Understood layouts, besides those of :mod:`.names`, which brings names of libraries and of models to
common ones:

* torchvision's and timm's VGG, their classifier becoming fc6 and fc7;
* any timm model for :class:`~seg_plugins.modeling.backbones.timm.TimmBackbone`;
* efficientnet_pytorch's networks for timm's;
* Caffe layer names of the VGG-FCN, SegNet and SegNet-Basic releases (``conv1_1``, ``score_fr``,
  ``conv5_3_D``, ``conv1_1_bn``, ...), each with ``.weight`` and ``.bias`` or ``.0`` and ``.1``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from torch import Tensor

from .layout import without_owner
from .names import Library, common_names, library_of, names_of_model

# The release's FCN layers; `upscore` names end with the factor here.
FCN_LAYERS = {
    "fc6": "backbone.fc.fc6",
    "fc7": "backbone.fc.fc7",
    "score_fr": "sem_seg_head.score.fc7",
    "score_pool4": "sem_seg_head.score.pool4",
    "score_pool3": "sem_seg_head.score.pool3",
    "upscore": "sem_seg_head.upscore.fc7_x32",
    "upscore2": "sem_seg_head.upscore.fc7_x2",
    "upscore16": "sem_seg_head.upscore.pool4_x16",
    "upscore_pool4": "sem_seg_head.upscore.pool4_x2",
    "upscore8": "sem_seg_head.upscore.pool3_x8",
}
# torchvision's and timm's fully connected layers.
CLASSIFIERS = {
    "classifier.0": "backbone.fc.fc6",
    "classifier.3": "backbone.fc.fc7",
    "pre_logits.fc1": "backbone.fc.fc6",
    "pre_logits.fc2": "backbone.fc.fc7",
}
CAFFE_PARAMETERS = {"0": "weight", "1": "bias"}
# COCO's numbers of its 80 classes, which torchvision keeps as classes of 91.
COCO_IDS = [category["id"] for category in COCO_CATEGORIES if category["isthing"]]


@dataclass
class Conversion:
    """What became of a file.

    Attributes:
        weights: name in the target model -> tensor of the target's shape.
        unused: names in the source that have no place in the target.
        misfits: source names whose tensors have another shape, with both; or that stand for a
            name which another one gave already.
        missing: names of the target that the source does not give.
        library: whose names the source has.
        adapted: the first convolution, where it got another number of input channels.
    """

    weights: dict[str, Tensor] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    misfits: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    library: Library | None = None
    adapted: str = ""


def convert(
    source: Mapping[str, Tensor], target: Mapping[str, Tensor], *, from_bgr: bool = False
) -> Conversion:
    """Map a state dict onto a model.

    Args:
        source: names and tensors of another library.
        target: the model's state dict; only names and shapes are read.
        from_bgr: reverse the input channels of the first convolution (Caffe's images are BGR).
    """
    source = without_owner(source)
    library = library_of(source)
    common = common_names(source, library)
    layers = {**_caffe_layers(target), **_efficientnet_layers(source, target)}
    of_model = names_of_model(target)
    result = Conversion(library=library)
    stem = next((name for name, tensor in source.items() if tensor.dim() == 4), "")
    for name, tensor in source.items():
        direct = (n for n in _candidates(name, layers) if n in target)
        joined = (of_model[n] for n in common[name] if n in of_model)
        wanted = next(direct, None) or next(joined, None)
        if wanted is None:
            result.unused.append(name)
            continue
        tensor = _classes(wanted, tensor, target[wanted].shape, library)
        if wanted in result.weights:
            result.misfits.append(f"{name} -> {wanted}: given before")
        elif name == stem and _of_other_channels(tensor, target[wanted]):
            from timm.models import adapt_input_conv  # timm takes a second to import

            channels = target[wanted].shape[1]
            result.adapted = f"{wanted} from {tensor.shape[1]} to {channels} input channels"
            result.weights[wanted] = adapt_input_conv(channels, tensor.clone())
        elif target[wanted].is_floating_point() and not tensor.is_floating_point():
            types = f"{tensor.dtype} in the file, {target[wanted].dtype} in the model"
            result.misfits.append(f"{name} -> {wanted}: {types}")
        elif not _same_values(tensor.shape, target[wanted].shape):
            sizes = tuple(tensor.shape), tuple(target[wanted].shape)
            shapes = f"{sizes[0]} in the file, {sizes[1]} in the model"
            result.misfits.append(f"{name} -> {wanted}: {shapes}")
        else:
            result.weights[wanted] = tensor.reshape(target[wanted].shape).clone()
    folded = library is not None and library.folded
    if folded and not any(name.endswith("running_mean") for name in source):
        _complete_batch_norms(result.weights, target)
    if from_bgr:
        backbone = (n for n, t in target.items() if n.startswith("backbone.") and t.dim() == 4)
        first = next(backbone, None)
        if first in result.weights:
            result.weights[first] = result.weights[first].flip(1)
    result.missing = [
        n for n in target if n not in result.weights and not n.endswith("num_batches_tracked")
    ]
    return result


def _same_values(source: torch.Size, target: torch.Size) -> bool:
    """Whether a tensor may take another shape: its values keep their order and meaning.

    A fully connected layer (O, C*h*w) is a convolution (O, C, h, w) over the whole map, and Caffe
    keeps vectors as (1, C, 1, 1). A kernel in another library's order of axes has as many values
    as well, and is none of them.
    """
    left, right = [n for n in source if n != 1], [n for n in target if n != 1]
    if left == right:
        return True
    matrix = len(left) == 2 and len(target) == 4
    return matrix and left[0] == target[0] and left[1] == target[1:].numel()


def _of_other_channels(tensor: Tensor, wanted: Tensor) -> bool:
    """Whether a first convolution of RGB images differs in the number of channels alone."""
    shape, other = tensor.shape, wanted.shape
    same = len(shape) == len(other) == 4 and (shape[0], *shape[2:]) == (other[0], *other[2:])
    return same and shape[1] == 3 != other[1]


def _classes(name: str, tensor: Tensor, wanted: torch.Size, library: Library | None) -> Tensor:
    """A predictor's rows in Detectron2's order: classes 0 to K - 1, then the background.

    torchvision has the background first, and COCO's 80 classes among 91.
    """
    predictors = ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_head.predictor")
    kind = next((p for p in predictors if f".{p}." in name), None)
    if library is None or not library.background_first or kind is None:
        return tensor
    rows = 4 if kind.endswith("bbox_pred") else 1
    extra = kind.endswith("cls_score")
    count, classes = len(tensor) // rows, wanted[0] // rows - extra
    if count == 91 and classes == len(COCO_IDS):
        order = COCO_IDS
    elif count == classes + 1:
        order = list(range(1, count))
    else:
        return tensor
    parts = tensor.unflatten(0, (count, rows))
    return parts[[*order, 0] if extra else order].flatten(0, 1)


def _efficientnet_layers(
    source: Mapping[str, Tensor], target: Mapping[str, Tensor]
) -> dict[str, str]:
    """Module of efficientnet_pytorch -> module of timm's network in the target."""
    pattern = re.compile(
        r"(backbone\.(?:bottom_up\.)?model\.)blocks\.(\d+)\.(\d+)\.conv_dw\.weight"
    )
    places = sorted(
        (int(found[2]), int(found[3]), found[1])
        for found in map(pattern.fullmatch, target) if found
    )  # fmt: skip
    if not places or "_conv_stem.weight" not in source:
        return {}
    prefix = places[0][2]
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2",
             "_fc": "classifier"}  # fmt: skip
    layers = {old: f"{prefix}{new}" for old, new in outer.items()}
    for number, (stage, block, _) in enumerate(places):
        old, new = f"_blocks.{number}", f"{prefix}blocks.{stage}.{block}"
        names = ["conv_dw", "bn1", "conv_pw", "bn2"]
        if f"{old}._expand_conv.weight" in source:
            layers |= {f"{old}._expand_conv": f"{new}.conv_pw", f"{old}._bn0": f"{new}.bn1"}
            names = ["conv_dw", "bn2", "conv_pwl", "bn3"]
        parts = ("_depthwise_conv", "_bn1", "_project_conv", "_bn2")
        layers |= {f"{old}.{a}": f"{new}.{b}" for a, b in zip(parts, names, strict=True)}
        layers |= {f"{old}._se_reduce": f"{new}.se.conv_reduce"}
        layers |= {f"{old}._se_expand": f"{new}.se.conv_expand"}
    return layers


def _candidates(name: str, layers: Mapping[str, str]) -> list[str]:
    """Target names that a source name may stand for, the likeliest first."""
    layer, _, parameter = name.rpartition(".")
    parameter = CAFFE_PARAMETERS.get(parameter, parameter)
    names = [name, f"backbone.{name}", f"backbone.model.{name}"]
    names.append(f"backbone.model.{name.replace('.', '_', 1)}")  # timm flattens the first level
    for table in (CLASSIFIERS, FCN_LAYERS, layers):
        if layer in table:
            names.append(f"{table[layer]}.{parameter}")
    return names


def _caffe_layers(target: Mapping[str, Tensor]) -> dict[str, str]:
    """Caffe layer name -> module of the target, for VGG, SegNet and SegNet-Basic."""
    layers: dict[str, str] = {}
    stage, index, previous, step = 1, 0, None, 4
    for place in _convolutions(target, r"backbone\.features\.(\d+)\.weight"):
        number = place[0]
        if previous is not None:
            gap = number - previous
            if gap > step:  # a pooling lies between
                stage, index = stage + 1, 0
        index += 1
        layers[f"conv{stage}_{index}"] = f"backbone.features.{number}"
        layers[f"conv{stage}_{index}_bn"] = f"backbone.features.{number + 1}"
        norm = f"backbone.features.{number + 1}.weight" in target
        previous, step = number, 3 if norm else 2
    for (number,) in _convolutions(target, r"backbone\.convs\.(\d+)\.0\.weight"):
        layers[f"conv{number + 1}"] = f"backbone.convs.{number}.0"
        layers[f"conv{number + 1}_bn"] = f"backbone.convs.{number}.1"
    decoder = _convolutions(target, r"sem_seg_head\.stages\.(\d+)\.(\d+)\.weight")
    stages = 1 + max((place[0] for place in decoder), default=-1)
    for number, position in decoder:
        same = [p for s, p in decoder if s == number]
        caffe = f"conv{stages - number}_{len(same) - same.index(position)}_D"
        basic = f"conv_decode{stages - number}"
        for name in (caffe, basic):
            layers[name] = f"sem_seg_head.stages.{number}.{position}"
            layers[f"{name}_bn"] = f"sem_seg_head.stages.{number}.{position + 1}"
    layers["conv_classifier"] = "sem_seg_head.classifier"
    return layers


def _convolutions(target: Mapping[str, Tensor], pattern: str) -> list[tuple[int, ...]]:
    """Numbers in the names of the convolutions that match, in order."""
    matches = (re.fullmatch(pattern, name) for name, t in target.items() if t.dim() == 4)
    return sorted(tuple(map(int, match.groups())) for match in matches if match)


def _complete_batch_norms(weights: dict[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """SegNet's release folds the statistics into scale and shift: mean 0, variance 1."""
    for name in list(weights):
        stem = name.removesuffix(".weight")
        mean, variance = f"{stem}.running_mean", f"{stem}.running_var"
        if stem != name and mean in target and mean not in weights:
            weights[mean] = torch.zeros_like(weights[name])
            weights[variance] = torch.ones_like(weights[name])
