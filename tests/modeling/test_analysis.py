from __future__ import annotations

from pathlib import Path

from seg_plugins import load_config
from seg_plugins.config import ConfigError
from seg_plugins.modeling.analysis import analyze, recomputation, size_at_test

import pytest
import torch
from detectron2.modeling import build_model
from fvcore.nn import FlopCountAnalysis
from torch import nn

CONFIGS = Path(__file__).parents[2] / "configs"


def rows(name: str, height: int, width: int, *opts) -> dict:
    return {row.name: row for row in analyze(load_config(name, opts), height, width)}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("voc/fcn32s_vgg16.yaml", 136_152_917),
        ("voc/fcn16s_vgg16.yaml", 134_815_994),
        ("voc/fcn8s_vgg16.yaml", 134_489_759),
        ("isbi2012/unet_valid.yaml", 31_030_658),
        ("camvid/segnet_vgg16.yaml", 29_449_355),
        ("camvid/segnet_basic.yaml", 1_416_587),
    ],
)
def test_parameters_of_the_papers_models(name: str, parameters: int) -> None:
    found = rows(name, 64, 64)
    assert found["total"].parameters == parameters
    assert found["backbone"].parameters + found["sem_seg_head"].parameters == parameters


@pytest.mark.parametrize(
    ("opts", "parameters"),
    [
        ((), 59_467_315),
        # Detectron2's separable decoder is one 5x5 convolution.
        (("USE_DEPTHWISE_SEPARABLE_CONV", True, "SEPARABLE_DECODER_KERNEL", 5), 45_747_267),
    ],
)
def test_parameters_of_detectron2s_r103(opts, parameters: int) -> None:
    keys = [f"MODEL.SEM_SEG_HEAD.{o}" if i % 2 == 0 else o for i, o in enumerate(opts)]
    found = rows("cityscapes/deeplabv3plus_r103.yaml", 64, 64, *keys)
    assert found["total"].parameters == parameters


@pytest.mark.parametrize(
    ("name", "billions", "tolerance"),
    [
        ("voc/deeplabv3plus_x65_separable.yaml", 54.17, 0.02),
        # What separable convolutions replace weighs 32.6 B here and 35.6 B in the paper, which
        # does not list its parts; the rest is the row above.
        ("voc/deeplabv3plus_x65.yaml", 89.76, 0.04),
    ],
)
def test_multiply_adds_of_xception_65(name: str, billions: float, tolerance: float) -> None:
    found = rows(name, 513, 513)["total"].multiply_adds / 1e9
    assert found == pytest.approx(billions, rel=tolerance)


def test_activation_memory_by_hand() -> None:
    # SegNet-Basic's head on 16x16 pixels with one class: each unpooling keeps its codes and gives
    # a map that the convolution keeps; the norm keeps the convolution's output and two statistics.
    found = rows("camvid/segnet_basic.yaml", 16, 16)["sem_seg_head"].activation_bytes
    maps = sum(64 * side**2 for side in (2, 4, 8, 16))
    norms, classifier = 4 * 2 * 64, 64 * 16**2
    assert found == 4 * (2 * maps + norms + classifier)


@pytest.mark.parametrize(
    "name",
    [
        "mask_rcnn_r18_fpn.yaml",
        "panoptic_sem_seg_fpn.yaml",
        "panoptic_bottom_up.yaml",
        "panoptic_solo_v2.yaml",
        "yolact_r18.yaml",
    ],
)
def test_activation_memory_of_all_parts_is_that_of_one_pass(name: str) -> None:
    """A pyramid's maps are kept by nobody but the heads, and by several of them."""
    cfg = load_config(f"shapes/{name}", ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""])
    model, image = build_model(cfg).train(), torch.zeros(1, 3, 64, 96)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        features = model.backbone(image)
        if rpn := getattr(model, "proposal_generator", None):
            rpn.rpn_head([features[name] for name in rpn.in_features])
        for head in ("representation", "sem_seg_head", "center_head"):
            if hasattr(model, head):
                getattr(model, head).layers(features)
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
    for tensor in (*model.parameters(), *model.buffers(), image):
        sizes.pop(tensor.untyped_storage().data_ptr(), None)
    parts = ("backbone", "proposal_generator", "representation", "sem_seg_head", "center_head")
    found = rows(f"shapes/{name}", 64, 96)
    assert sum(found[p].activation_bytes for p in parts if p in found) == sum(sizes.values())


def test_fully_convolutional_evaluation_saves_recomputation() -> None:
    cfg = load_config("isbi2012/patch_classifier.yaml")
    counts = recomputation(cfg, 512, 512)
    assert counts.naive / counts.dense > 400
    # Only the mirrored border is computed in addition where windows do not overlap at all.
    alone = recomputation(cfg, 1, 1)
    assert alone.dense > alone.naive


def _counted_by_fvcore(model, image) -> int:
    found = FlopCountAnalysis(model.eval(), image).unsupported_ops_warnings(False)
    found.uncalled_modules_warnings(False)
    return sum(found.by_operator()[name] for name in ("conv", "linear", "addmm"))


class _Scores(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.model.inner_logits(self.model.extended(image))


@pytest.mark.parametrize(
    "name", ["unet_shapes.yaml", "deeplabv3plus_r18_shapes.yaml", "fcn_vgg11_shapes.yaml"]
)
def test_multiply_adds_are_fvcores(name: str) -> None:
    cfg = load_config(f"quickstart/{name}", ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""])
    scores = _Scores(build_model(cfg))
    expected = _counted_by_fvcore(scores, torch.zeros(1, 3, 64, 96))
    found = {row.name: row for row in analyze(cfg, 64, 96)}["total"].multiply_adds
    assert found == expected


class _Locations(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        outputs = self.model.representation(self.model.backbone(image))
        maps = (outputs.categories, outputs.centerness, outputs.sides, outputs.codes)
        return [*(level for levels in maps for level in levels), outputs.shared]


def test_multiply_adds_of_a_one_stage_system_are_fvcores() -> None:
    cfg = load_config("shapes/cond_inst_r18.yaml", ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""])
    expected = _counted_by_fvcore(_Locations(build_model(cfg)), torch.zeros(1, 3, 64, 96))
    found = {row.name: row for row in analyze(cfg, 64, 96)}
    assert found["total"].multiply_adds == expected
    assert found["total"].parameters == sum(
        found[part].parameters for part in ("backbone", "representation")
    )


def test_mask_rcnn_on_a_pyramid_by_hand() -> None:
    found = rows("shapes/mask_rcnn_r18_fpn.yaml", 128, 128)
    # p2 to p6 of a 128 x 128 image; 128 channels, 3 anchors.
    positions = 32**2 + 16**2 + 8**2 + 4**2 + 2**2
    conv = 9 * 128 * 128
    assert found["proposal_generator"].multiply_adds == positions * (conv + 128 * 3 * (1 + 4))

    boxes = found["roi_heads, boxes"]
    pooled = 7 * 7 * 128
    assert boxes.regions == 200
    assert boxes.multiply_adds == 200 * (pooled * 256 + 256 * 256 + 256 * (7 + 6 * 4))
    # The pooled regions and what each of the two ReLUs gives.
    assert boxes.activation_bytes == 4 * 200 * (pooled + 256 + 256)

    masks = found["roi_heads, masks"]
    deconv, scores = 14**2 * 4 * 128 * 128, 28**2 * 128 * 6
    assert masks.regions == 100
    assert masks.multiply_adds == 100 * (2 * 14**2 * conv + deconv + scores)
    assert masks.parameters == 2 * (conv + 128) + 4 * 128 * 128 + 128 + 128 * 6 + 6

    cfg = load_config("shapes/mask_rcnn_r18_fpn.yaml", ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    image = torch.zeros(1, 3, 128, 128)
    assert found["backbone"].multiply_adds == _counted_by_fvcore(model.backbone, image)
    total = sum(p.numel() for p in model.parameters())
    assert found["total"].parameters == total
    assert sum(row.parameters for row in found.values()) == 2 * total


def test_mask_rcnn_on_one_map_runs_its_last_stage_for_both_branches() -> None:
    found = rows("shapes/mask_rcnn_r18_c4.yaml", 128, 128)
    cfg = load_config("shapes/mask_rcnn_r18_c4.yaml", ["MODEL.DEVICE", "cpu"])
    heads = build_model(cfg).roi_heads
    side = cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION
    region = torch.zeros(1, heads.res5[0].in_channels, side, side)
    stage = _counted_by_fvcore(heads.res5, region)
    boxes, masks = found["roi_heads, boxes"], found["roi_heads, masks"]
    channels = heads.res5[-1].out_channels
    assert boxes.multiply_adds == boxes.regions * (stage + channels * (7 + 6 * 4))
    head = _counted_by_fvcore(heads.mask_head.deconv, torch.zeros(1, channels, 7, 7))
    scores = heads.mask_head.predictor
    head += 14**2 * scores.in_channels * scores.out_channels
    assert masks.multiply_adds == masks.regions * (stage + head)
    assert boxes.parameters == sum(
        p.numel() for part in (heads.res5, heads.box_predictor) for p in part.parameters()
    )


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (
            "panoptic_unet.yaml",
            ["proposal_generator", "roi_heads, boxes", "roi_heads, masks", "sem_seg_head"],
        ),
        (
            "panoptic_sem_seg_fpn.yaml",
            ["proposal_generator", "roi_heads, boxes", "roi_heads, masks"],
        ),
        ("panoptic_bottom_up.yaml", ["sem_seg_head", "center_head"]),
    ],
)
def test_panoptic_systems(name: str, parts: list[str]) -> None:
    found = rows(f"shapes/{name}", 100, 128)  # pyramids take multiples of 32
    total = found.pop("total")
    assert {"backbone", *parts} <= found.keys()
    assert sum(row.parameters for row in found.values()) == total.parameters
    assert all(row.multiply_adds and row.activation_bytes for row in found.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", sorted(p for p in CONFIGS.rglob("*.yaml") if "_base_" not in p.parts)
)
def test_every_configuration(path: Path) -> None:
    cfg = load_config(str(path))
    found = analyze(cfg, *size_at_test(cfg))
    assert found[-1].multiply_adds > 0
    assert found[-1].parameters == sum(row.parameters for row in found[:-1])


def test_other_models_are_refused() -> None:
    cfg = load_config("voc/fcn8s_vgg16.yaml")
    with pytest.raises(ConfigError, match="PatchClassifier"):
        recomputation(cfg, 8, 8)
    cfg = load_config("shapes/mask_rcnn_r18_c4.yaml")
    cfg.MODEL.META_ARCHITECTURE = "ProposalNetwork"
    with pytest.raises(ConfigError, match="ProposalNetwork cannot be analysed"):
        analyze(cfg, 64, 64)


def test_regions_from_elsewhere_are_refused() -> None:
    opts = ("MODEL.META_ARCHITECTURE", "GeneralizedRCNN")
    opts += ("MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals")
    with pytest.raises(ConfigError, match=r"GeneralizedRCNN .* PrecomputedProposals: it is no RPN"):
        rows("shapes/mask_rcnn_r18_fpn.yaml", 64, 64, *opts)
