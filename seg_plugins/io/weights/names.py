"""One name for the same tensor in every library: theirs and the models' are both brought to it.

Backbones are ``backbone.`` and torchvision's names, which timm's ResNets share; parts of regions
are ``fpn``, ``rpn``, ``box`` and ``mask``, DeepLab's pyramid is ``aspp``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

Rules = Sequence[tuple[str, str]]

# ------------------------------------------------------------------------------------- the models

_RESNET: Rules = (
    (r"^roi_heads\.res5\.", "backbone.res5."),
    (r"^backbone\.(?:bottom_up\.)?(?:model\.)?", "backbone."),
    (r"^backbone\.stem\.conv1\.norm\.", "backbone.bn1."),
    (r"^backbone\.stem\.conv1\.", "backbone.conv1."),
    *((rf"^backbone\.res{i + 1}\.", f"backbone.layer{i}.") for i in range(1, 5)),
    (r"^(backbone\.layer.*)\.conv(\d)\.norm\.", r"\1.bn\2."),
    (r"^(backbone\.layer.*)\.shortcut\.norm\.", r"\1.downsample.1."),
    (r"^(backbone\.layer.*)\.shortcut\.", r"\1.downsample.0."),
)
# A stem of three convolutions, in timm's numbers.
_DEEP_STEM: Rules = (
    (r"^backbone\.stem\.conv1\.norm\.", "backbone.conv1.1."),
    (r"^backbone\.stem\.conv1\.", "backbone.conv1.0."),
    (r"^backbone\.stem\.conv2\.norm\.", "backbone.conv1.4."),
    (r"^backbone\.stem\.conv2\.", "backbone.conv1.3."),
    (r"^backbone\.stem\.conv3\.norm\.", "backbone.bn1."),
    (r"^backbone\.stem\.conv3\.", "backbone.conv1.6."),
)
_HEADS: Rules = (
    *((rf"^backbone\.fpn_lateral{i + 2}\.", f"fpn.lateral.{i}.") for i in range(4)),
    *((rf"^backbone\.fpn_output{i + 2}\.", f"fpn.output.{i}.") for i in range(4)),
    (r"^proposal_generator\.rpn_head\.conv\.conv(\d)\.", r"rpn.conv\1."),
    (r"^proposal_generator\.rpn_head\.conv\.", "rpn.conv0."),
    (r"^proposal_generator\.rpn_head\.objectness_logits\.", "rpn.scores."),
    (r"^proposal_generator\.rpn_head\.anchor_deltas\.", "rpn.deltas."),
    (r"^roi_heads\.box_head\.", "box."),
    (r"^roi_heads\.box_predictor\.cls_score\.", "box.scores."),
    (r"^roi_heads\.box_predictor\.bbox_pred\.", "box.deltas."),
    *((rf"^roi_heads\.mask_head\.mask_fcn{i + 1}\.", f"mask.conv{i}.") for i in range(8)),
    (r"^roi_heads\.mask_head\.deconv\.", "mask.up."),
    (r"^roi_heads\.mask_head\.predictor\.", "mask.scores."),
    (r"^sem_seg_head\.decoder\.res5\.project_conv\.convs\.(\d)\.norm\.", r"aspp.\1.norm."),
    (r"^sem_seg_head\.decoder\.res5\.project_conv\.convs\.(\d)\.", r"aspp.\1."),
    (r"^sem_seg_head\.decoder\.res5\.project_conv\.project\.", "aspp.project."),
)


def names_of_model(target: Mapping[str, Tensor]) -> dict[str, str]:
    """The common name of each of a model's tensors -> the model's."""
    rules = _rules_of_models(target)
    return {_apply(rules, name): name for name in target}


def _rules_of_models(tensors: Mapping[str, Tensor]) -> Rules:
    deep = any(name.endswith("stem.conv3.weight") for name in tensors)
    return (*_RESNET[:2], *(_DEEP_STEM if deep else ()), *_RESNET[2:], *_HEADS)


# ---------------------------------------------------------------------------------- the libraries


@dataclass(frozen=True)
class Library:
    """How a library names its tensors.

    Attributes:
        name: as messages call it.
        marks: patterns of names, all of which a file of it has.
        rules: from its names to the common ones, the first that matches.
        background_first: class 0 of its regions is the background.
        mean: of each channel of the RGB images that its networks see; () where names do not tell.
        std: the same.
        late_stride: its ResNets have the stride in the 3x3 convolution.
        folded: statistics of batch norms may be folded into scale and shift.
    """

    name: str
    marks: tuple[str, ...]
    rules: Rules
    background_first: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    late_stride: bool = False
    folded: bool = False


_REGIONS_OF_TORCHVISION: Rules = (
    (r"^backbone\.body\.", "backbone."),
    # Before version 0.14 without the second number.
    (r"^backbone\.fpn\.inner_blocks\.(\d)\.1\.", r"fpn.lateral.\1.norm."),
    (r"^backbone\.fpn\.inner_blocks\.(\d)\.(?:0\.)?", r"fpn.lateral.\1."),
    (r"^backbone\.fpn\.layer_blocks\.(\d)\.1\.", r"fpn.output.\1.norm."),
    (r"^backbone\.fpn\.layer_blocks\.(\d)\.(?:0\.)?", r"fpn.output.\1."),
    (r"^rpn\.head\.conv\.(\d)\.0\.", r"rpn.conv\1."),
    (r"^rpn\.head\.conv\.", "rpn.conv0."),
    (r"^rpn\.head\.cls_logits\.", "rpn.scores."),
    (r"^rpn\.head\.bbox_pred\.", "rpn.deltas."),
    (r"^roi_heads\.box_head\.fc6\.", "box.fc1."),
    (r"^roi_heads\.box_head\.fc7\.", "box.fc2."),
    *((rf"^roi_heads\.box_head\.{i}\.0\.", f"box.conv{i + 1}.") for i in range(4)),
    *((rf"^roi_heads\.box_head\.{i}\.1\.", f"box.conv{i + 1}.norm.") for i in range(4)),
    (r"^roi_heads\.box_head\.5\.", "box.fc1."),
    (r"^roi_heads\.box_predictor\.cls_score\.", "box.scores."),
    (r"^roi_heads\.box_predictor\.bbox_pred\.", "box.deltas."),
    *((rf"^roi_heads\.mask_head\.mask_fcn{i + 1}\.", f"mask.conv{i}.") for i in range(4)),
    (r"^roi_heads\.mask_head\.(\d)\.0\.", r"mask.conv\1."),
    (r"^roi_heads\.mask_head\.(\d)\.1\.", r"mask.conv\1.norm."),
    (r"^roi_heads\.mask_predictor\.conv5_mask\.", "mask.up."),
    (r"^roi_heads\.mask_predictor\.mask_fcn_logits\.", "mask.scores."),
)
_SEMANTIC_OF_TORCHVISION: Rules = (
    (r"^classifier\.0\.convs\.(\d)\.0\.", r"aspp.\1."),
    (r"^classifier\.0\.convs\.(\d)\.1\.", r"aspp.\1.norm."),
    (r"^classifier\.0\.project\.0\.", "aspp.project."),
    (r"^classifier\.0\.project\.1\.", "aspp.project.norm."),
)
_OPEN_MMLAB: Rules = (
    *((rf"^backbone\.stem\.{i}\.", f"backbone.conv1.{i}.") for i in (0, 1, 3, 4, 6)),
    (r"^backbone\.stem\.7\.", "backbone.bn1."),
    (r"^neck\.lateral_convs\.(\d)\.conv\.", r"fpn.lateral.\1."),
    (r"^neck\.lateral_convs\.(\d)\.bn\.", r"fpn.lateral.\1.norm."),
    (r"^neck\.fpn_convs\.(\d)\.conv\.", r"fpn.output.\1."),
    (r"^neck\.fpn_convs\.(\d)\.bn\.", r"fpn.output.\1.norm."),
    (r"^rpn_head\.rpn_conv\.", "rpn.conv0."),
    (r"^rpn_head\.rpn_cls\.", "rpn.scores."),
    (r"^rpn_head\.rpn_reg\.", "rpn.deltas."),
    (r"^roi_head\.bbox_head\.shared_fcs\.0\.", "box.fc1."),
    (r"^roi_head\.bbox_head\.shared_fcs\.1\.", "box.fc2."),
    (r"^roi_head\.bbox_head\.fc_cls\.", "box.scores."),
    (r"^roi_head\.bbox_head\.fc_reg\.", "box.deltas."),
    (r"^roi_head\.mask_head\.convs\.(\d)\.conv\.", r"mask.conv\1."),
    (r"^roi_head\.mask_head\.upsample\.", "mask.up."),
    (r"^roi_head\.mask_head\.conv_logits\.", "mask.scores."),
)

# ImageNet's, in 0 to 255.
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
LIBRARIES: tuple[Library, ...] = (
    Library(
        "torchvision Mask R-CNN or Faster R-CNN",
        (r"^backbone\.body\.", r"^rpn\.head\."),
        _REGIONS_OF_TORCHVISION,
        background_first=True,
        mean=_MEAN,
        std=_STD,
        late_stride=True,
    ),
    Library("mmdetection", (r"^backbone\.", r"^(neck|rpn_head|roi_head|bbox_head)\."), _OPEN_MMLAB),
    Library("mmsegmentation", (r"^backbone\.", r"^decode_head\."), _OPEN_MMLAB),
    Library(
        "torchvision FCN or DeepLabv3",
        (r"^backbone\.(layer1|features|0)\.", r"^classifier\.\d+\."),
        _SEMANTIC_OF_TORCHVISION,
        mean=_MEAN,
        std=_STD,
        late_stride=True,
    ),
    Library(
        "segmentation_models.pytorch",
        (r"^encoder\.",),
        ((r"^encoder\.(?:model\.)?", "backbone."),),
        late_stride=True,
    ),
    # Backbones alone, with or without their classifier.
    Library(
        "torchvision or timm",
        (r"^layer1\.\d+\.conv1\.",),
        ((r"^", "backbone."),),
        mean=_MEAN,
        std=_STD,
        late_stride=True,
    ),
    Library("torchvision VGG", (r"^features\.0\.",), (), mean=_MEAN, std=_STD),
    Library(
        "efficientnet_pytorch",
        (r"^_blocks\.0\._depthwise_conv\.", r"^_blocks\.0\._se_reduce\."),
        (),
        mean=_MEAN,
        std=_STD,
    ),
    # Without squeeze and excitation: made for 8-bit integers, and trained on images of -1 to 1.
    Library(
        "efficientnet_pytorch Lite",
        (r"^_blocks\.0\._depthwise_conv\.",),
        (),
        mean=(127.0,) * 3,
        std=(128.0,) * 3,
    ),
    Library(
        "Caffe release",
        (r"^conv1(_1)?\.(0|weight)$", r"^conv2(_1)?\.(0|weight)$"),
        (),
        folded=True,
    ),
    Library("timm", (r"^(stem|stages|blocks|conv_stem|patch_embed)\b",), ((r"^", "backbone."),)),
)


def library_of(tensors: Mapping[str, Tensor]) -> Library | None:
    """Whose names these are; None where they are no known library's."""
    for library in LIBRARIES:
        if all(any(re.match(mark, name) for name in tensors) for mark in library.marks):
            return library
    return None


def common_names(source: Mapping[str, Tensor], library: Library | None) -> dict[str, list[str]]:
    """Each of a file's names -> what it may be called in common names, the likeliest first.

    A file of no known library may be of another model of Detectron2's or of this package.
    """
    if library is None:
        rules = _rules_of_models(source)
        return {name: [_apply(rules, name)] for name in source}
    return {name: _spellings(_apply_first(library.rules, name)) for name in source}


def _spellings(common: str) -> list[str]:
    head, _, rest = common.partition(".")
    # Networks that give features have the first level in one name: stages.0.x is stages_0.x.
    return [common, f"{head}.{rest.replace('.', '_', 1)}"] if head == "backbone" else [common]


# Blocks of the four stages -> depth with two convolutions in a block, and with three.
_DEPTHS: dict[tuple[int, ...], tuple[int, int]] = {
    (2, 2, 2, 2): (18, 26),
    (3, 4, 6, 3): (34, 50),
    (3, 4, 23, 3): (0, 101),
    (3, 8, 36, 3): (0, 152),
}


def depth_of_resnet(tensors: Mapping[str, Tensor]) -> int | None:
    """The depth of a ResNet in any of the spellings here; None where there is none."""
    names = list(tensors)
    blocks = tuple(
        len({m[1] for n in names if (m := re.search(rf"(?:layer{i}|res{i + 1})\.(\d+)\.conv1", n))})
        for i in range(1, 5)
    )
    bottleneck = any(re.search(r"(?:layer1|res2)\.0\.conv3", name) for name in names)
    return _DEPTHS.get(blocks, (0, 0))[bottleneck] or None


def described(tensors: Mapping[str, Tensor]) -> str:
    """What a file looks like, for messages: "torchvision or timm, ResNet-50"; "" if unknown."""
    library, depth = library_of(tensors), depth_of_resnet(tensors)
    parts = [library.name] if library else []
    return ", ".join([*parts, f"ResNet-{depth}"] if depth else parts)


def _apply(rules: Rules, name: str) -> str:
    for pattern, new in rules:
        name = re.sub(pattern, new, name)
    return name


def _apply_first(rules: Rules, name: str) -> str:
    for pattern, new in rules:
        changed, count = re.subn(pattern, new, name)
        if count:
            return changed
    return name
