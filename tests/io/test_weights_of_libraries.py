"""Weights under the names of other libraries: taken from their own models, and giving the same."""

from __future__ import annotations

import logging
import re

from seg_plugins import load_config
from seg_plugins.engine.builders import Builders
from seg_plugins.engine.checkpoint import Checkpointer, WeightsError
from seg_plugins.io.weights.conversion import COCO_IDS, convert
from seg_plugins.io.weights.names import described

import pytest
import timm
import torch
import torchvision
from detectron2.modeling import build_model
from torch import nn

DETECTION, SEMANTIC = torchvision.models.detection, torchvision.models.segmentation
COMMON = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.TIMM.PRETRAINED", False]
BATCH_NORM = ["MODEL.RESNETS.NORM", "BN", "MODEL.RESNETS.STRIDE_IN_1X1", False]
R18 = [*BATCH_NORM, "MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64]
# Mask R-CNN v2 (Li et al. 2021): batch norms, two convolutions in the RPN, four in the box head.
V2 = [*("MODEL.FPN.NORM", "BN", "MODEL.RPN.CONV_DIMS", [-1, -1], "MODEL.ROI_MASK_HEAD.NORM", "BN"),
      *("MODEL.ROI_BOX_HEAD.NUM_CONV", 4, "MODEL.ROI_BOX_HEAD.NUM_FC", 1),
      *("MODEL.ROI_BOX_HEAD.NORM", "BN")]  # fmt: skip


def build(config: str, *opts: object) -> nn.Module:
    torch.manual_seed(1)
    return build_model(load_config(config, [*COMMON, *opts])).eval()


def with_statistics(model: nn.Module) -> nn.Module:
    """Norms of their own, so that one in another's place shows."""
    torch.manual_seed(2)
    for module in model.modules():
        if hasattr(module, "running_mean"):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.bias, -0.1, 0.1)
    return model.eval()


def loaded(model: nn.Module, source: nn.Module | dict, path, caplog) -> str:
    """The line of the log."""
    state = source.state_dict() if isinstance(source, nn.Module) else source
    torch.save(state, path / "other.pth")
    caplog.clear()
    with caplog.at_level(logging.INFO):
        Checkpointer(model).load(str(path / "other.pth"))
    return next(r.getMessage() for r in caplog.records if "tensors loaded" in r.getMessage())


def levels_of_resnet(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Of torchvision's and timm's alike."""
    x = model.maxpool(model.relu(model.bn1(model.conv1(x)))) if hasattr(model, "relu") else (
        model.maxpool(model.act1(model.bn1(model.conv1(x))))
    )  # fmt: skip
    found = []
    for i in range(1, 5):
        x = getattr(model, f"layer{i}")(x)
        found.append(x)
    return found


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("library", ["torchvision", "timm", "encoder", "mmdetection", "wrapped"])
def test_a_resnet_gives_the_same_features(library, depth, tmp_path, caplog):
    if library == "timm":
        peer = with_statistics(timm.create_model(f"resnet{depth}"))
    else:
        peer = with_statistics(getattr(torchvision.models, f"resnet{depth}")())
    state = peer.state_dict()
    if library == "encoder":  # of segmentation_models.pytorch
        state = {f"encoder.{k}": v for k, v in state.items() if not k.startswith("fc.")}
    elif library == "mmdetection":
        state = {f"backbone.{k}": v for k, v in state.items() if not k.startswith("fc.")}
        state["neck.lateral_convs.0.conv.weight"] = torch.zeros(1)
        state = {"state_dict": state, "meta": {"epoch": 12}}
    elif library == "wrapped":
        state = {"ema": {f"module._orig_mod.{k}": v for k, v in state.items()}}
    depths = R18 if depth == 18 else BATCH_NORM
    model = build("coco/mask_rcnn_r50_fpn_1x.yaml", *depths)
    line = loaded(model, state, tmp_path, caplog)
    assert f"ResNet-{depth})" in line
    count = sum(not k.endswith("tracked") for k in model.backbone.bottom_up.state_dict())
    assert line.startswith(f"{count} of ")
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        ours = list(model.backbone.bottom_up(x).values())
        torch.testing.assert_close(ours, levels_of_resnet(peer, x))


@pytest.mark.parametrize("config", ["coco/mask_rcnn_r50_c4_1x.yaml", "ade20k/unet_r50.yaml"])
def test_every_kind_of_backbone_takes_torchvisions_resnet(config, tmp_path, caplog):
    """Regions of C4 hold the last stage; timm's networks have names of their own."""
    state = torchvision.models.resnet50().state_dict()
    model = build(config, "MODEL.TIMM.NORM", "")
    loaded(model, state, tmp_path, caplog)
    ours, wanted = (
        {(tuple(v.shape), v.sum().item()) for v in tensors.values() if v.dim() == 4}
        for tensors in (model.state_dict(), state)
    )
    assert wanted <= ours


@pytest.mark.parametrize("version", [1, 2])
def test_torchvisions_mask_rcnn_is_loaded_whole(version, tmp_path, caplog):
    name = "maskrcnn_resnet50_fpn" + "_v2" * (version == 2)
    peer = getattr(DETECTION, name)(weights=None, weights_backbone=None)
    peer = with_statistics(peer)
    model = build("coco/mask_rcnn_r50_fpn_1x.yaml", *BATCH_NORM, *(V2 if version == 2 else []))
    if version == 1:
        model = build("coco/mask_rcnn_r50_fpn_1x.yaml", "MODEL.RESNETS.STRIDE_IN_1X1", False)
    line = loaded(model, peer, tmp_path, caplog)
    total = re.match(r"(\d+) of (\d+) tensors", line)
    assert total[1] == total[2], line
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        theirs = list(peer.backbone(x).values())
        ours = list(model.backbone(x).values())
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        scores, deltas = peer.rpn.head(theirs)
        head = model.proposal_generator.rpn_head
        torch.testing.assert_close(head(ours), [scores, deltas], rtol=1e-4, atol=1e-4)
        regions = torch.randn(3, 256, 7, 7)
        expected = peer.roi_heads.box_predictor(peer.roi_heads.box_head(regions))
        found = model.roi_heads.box_predictor(model.roi_heads.box_head(regions))
        torch.testing.assert_close(found[0], expected[0][:, [*COCO_IDS, 0]])
        torch.testing.assert_close(found[1].view(3, 80, 4), expected[1].view(3, 91, 4)[:, COCO_IDS])
        regions = torch.randn(3, 256, 14, 14)
        expected = peer.roi_heads.mask_predictor(peer.roi_heads.mask_head(regions))
        masks = model.roi_heads.mask_head.layers(regions)
        torch.testing.assert_close(masks, expected[:, COCO_IDS], rtol=1e-4, atol=1e-4)


def test_a_mask_rcnn_for_ones_own_classes_puts_the_background_last():
    peer = DETECTION.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=4
    ).state_dict()
    model = build("coco/mask_rcnn_r50_fpn_1x.yaml", "MODEL.ROI_HEADS.NUM_CLASSES", 3)
    result = convert(peer, model.state_dict())
    assert result.missing == result.misfits == []
    scores = peer["roi_heads.box_predictor.cls_score.bias"]
    name = "roi_heads.box_predictor.cls_score.bias"
    assert result.weights[name].equal(scores[[1, 2, 3, 0]])


@pytest.mark.parametrize("name", ["deeplabv3_resnet50", "fcn_resnet50"])
def test_torchvisions_semantic_networks_give_backbone_and_pyramid(name, tmp_path, caplog):
    peer = getattr(SEMANTIC, name)(weights=None, weights_backbone=None, aux_loss=True)
    stem = ["MODEL.RESNETS.STEM_TYPE", "basic", "MODEL.RESNETS.STEM_OUT_CHANNELS", 64]
    model = build("cityscapes/deeplabv3plus_r103.yaml", "MODEL.RESNETS.DEPTH", 50,
                  "MODEL.RESNETS.NORM", "BN", "MODEL.SEM_SEG_HEAD.NORM", "BN", *stem)  # fmt: skip
    line = loaded(model, peer, tmp_path, caplog)
    assert "torchvision FCN or DeepLabv3, ResNet-50" in line
    source, state = peer.state_dict(), model.state_dict()
    assert state["backbone.res5.2.conv3.weight"].equal(source["backbone.layer4.2.conv3.weight"])
    if name.startswith("deeplab"):
        pyramid = "sem_seg_head.decoder.res5.project_conv"
        for ours, theirs in (("convs.2", "convs.2.0"), ("project", "project.0")):
            assert state[f"{pyramid}.{ours}.weight"].equal(source[f"classifier.0.{theirs}.weight"])


def test_mmdetections_heads(tmp_path):
    """Its names, from its documented layout; shapes are those of Mask R-CNN R50-FPN."""
    target = build("coco/mask_rcnn_r50_fpn_1x.yaml").state_dict()
    shapes = {name: value.shape for name, value in target.items()}
    pairs = {"rpn_head.rpn_conv": "proposal_generator.rpn_head.conv",
             "rpn_head.rpn_cls": "proposal_generator.rpn_head.objectness_logits",
             "rpn_head.rpn_reg": "proposal_generator.rpn_head.anchor_deltas",
             "roi_head.bbox_head.shared_fcs.0": "roi_heads.box_head.fc1",
             "roi_head.bbox_head.shared_fcs.1": "roi_heads.box_head.fc2",
             "roi_head.bbox_head.fc_cls": "roi_heads.box_predictor.cls_score",
             "roi_head.bbox_head.fc_reg": "roi_heads.box_predictor.bbox_pred",
             "roi_head.mask_head.upsample": "roi_heads.mask_head.deconv",
             "roi_head.mask_head.conv_logits": "roi_heads.mask_head.predictor"}  # fmt: skip
    for i in range(4):
        pairs[f"roi_head.mask_head.convs.{i}.conv"] = f"roi_heads.mask_head.mask_fcn{i + 1}"
        pairs[f"neck.lateral_convs.{i}.conv"] = f"backbone.fpn_lateral{i + 2}"
        pairs[f"neck.fpn_convs.{i}.conv"] = f"backbone.fpn_output{i + 2}"
    backbone = torchvision.models.resnet50().state_dict()
    source = {f"backbone.{k}": v for k, v in backbone.items() if not k.startswith("fc.")}
    for theirs, ours in pairs.items():
        for end in ("weight", "bias"):
            source[f"{theirs}.{end}"] = torch.randn(shapes[f"{ours}.{end}"])
    result = convert(source, target)
    assert result.missing == result.misfits == []
    assert [n for n in result.unused if not n.endswith("tracked")] == []
    for theirs, ours in pairs.items():
        assert result.weights[f"{ours}.bias"].equal(source[f"{theirs}.bias"])


@pytest.mark.parametrize("name", ["efficientnet_b0", "convnext_atto", "resnet50d"])
def test_timms_networks_below_a_pyramid(name, tmp_path, caplog):
    peer = timm.create_model(name).eval()
    pyramid = ["MODEL.BACKBONE.NAME", "build_timm_fpn_backbone", "MODEL.TIMM.NAME", name,
               "MODEL.TIMM.NORM", "", "MODEL.FPN.IN_FEATURES", ["res2", "res3", "res4", "res5"],
               "MODEL.TIMM.OUT_FEATURES", ["res2", "res3", "res4", "res5"]]  # fmt: skip
    model = build("coco/mask_rcnn_r50_fpn_1x.yaml", *pyramid)
    loaded(model, peer, tmp_path, caplog)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = peer.forward_intermediates(x, intermediates_only=True)[-1]
        found = model.backbone.bottom_up(x)["res5"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_input_channels_take_the_first_layer_as_timm_does(channels, tmp_path, caplog):
    peer = torchvision.models.resnet18().state_dict()
    mean = ["MODEL.PIXEL_MEAN", [0.0] * channels, "MODEL.PIXEL_STD", [1.0] * channels]
    model = build("coco/mask_rcnn_r50_fpn_1x.yaml", *R18, *mean)
    line = loaded(model, peer, tmp_path, caplog)
    assert f"backbone.bottom_up.stem.conv1.weight from 3 to {channels} input channels" in line
    expected = timm.models.adapt_input_conv(channels, peer["conv1.weight"].clone())
    assert model.backbone.bottom_up.stem.conv1.weight.equal(expected)


def test_a_file_of_one_system_starts_another(tmp_path, caplog):
    """From Mask R-CNN with a pyramid to C4: the backbone, whose last stage moves."""
    with torch.no_grad():
        source = build("coco/mask_rcnn_r50_fpn_1x.yaml")
    model = build("coco/mask_rcnn_r50_c4_1x.yaml")
    loaded(model, source, tmp_path, caplog)
    theirs = source.state_dict()["backbone.bottom_up.res5.2.conv3.weight"]
    assert model.state_dict()["roi_heads.res5.2.conv3.weight"].equal(theirs)


def test_a_file_of_another_system_is_no_whole_model(tmp_path):
    """Detectron2's ResNet and timm's have the same tensors, and strides in other places."""
    timms = ["MODEL.BACKBONE.NAME", "build_timm_fpn_backbone", "MODEL.TIMM.NAME", "resnet50",
             "MODEL.TIMM.NORM", "", "MODEL.FPN.IN_FEATURES", ["res2", "res3", "res4", "res5"],
             "MODEL.TIMM.OUT_FEATURES", ["res2", "res3", "res4", "res5"]]  # fmt: skip
    source = build("coco/mask_rcnn_r50_fpn_1x.yaml", "MODEL.RESNETS.NORM", "BN")
    torch.save(source.state_dict(), tmp_path / "other.pth")
    model = build("coco/mask_rcnn_r50_fpn_1x.yaml", *timms)
    with pytest.raises(WeightsError, match="is not this model, of which every tensor is needed"):
        Checkpointer(model).load(str(tmp_path / "other.pth"), complete=True)
    Checkpointer(model).load(str(tmp_path / "other.pth"))  # a start


def test_a_whole_model_has_its_own_first_layer(tmp_path):
    peer = DETECTION.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    torch.save(peer.state_dict(), tmp_path / "rgb.pth")
    grey = ["MODEL.PIXEL_MEAN", [0.0], "MODEL.PIXEL_STD", [1.0]]
    model = build("coco/mask_rcnn_r50_fpn_1x.yaml", *grey)
    with pytest.raises(WeightsError, match="from 3 to 1 input channels"):
        Checkpointer(model).load(str(tmp_path / "rgb.pth"), complete=True)
    Checkpointer(model).load(str(tmp_path / "rgb.pth"))


def test_nothing_is_said_of_a_scale_that_names_do_not_tell(tmp_path, caplog):
    """timm's networks have several."""
    name = "efficientnet_b0"
    torch.save(timm.create_model(name).state_dict(), tmp_path / "b0.pth")
    options = ["MODEL.TIMM.NAME", name, "MODEL.TIMM.NORM", "", "MODEL.UNET.DECODER_CHANNELS", []]
    cfg = load_config("ade20k/unet_r50.yaml", [*COMMON, *options])
    with caplog.at_level(logging.WARNING):
        Builders.build_checkpointer(cfg, build_model(cfg)).load(str(tmp_path / "b0.pth"))
    assert "(timm)" in caplog.text
    assert " expects " not in caplog.text


@pytest.mark.parametrize(
    ("opts", "expected"),
    [
        ([], ["INPUT.FORMAT RGB", "STRIDE_IN_1X1 False"]),
        (["MODEL.RESNETS.STRIDE_IN_1X1", False], ["INPUT.FORMAT RGB"]),
        (
            [*("INPUT.FORMAT", "RGB", "MODEL.RESNETS.STRIDE_IN_1X1", False),
             *("MODEL.PIXEL_MEAN", [123.675, 116.28, 103.53]),
             *("MODEL.PIXEL_STD", [58.395, 57.12, 57.375])],
            [],
        ),
    ],
)  # fmt: skip
def test_what_the_weights_expect_of_the_configuration(opts, expected, tmp_path, caplog):
    torch.save(torchvision.models.resnet50().state_dict(), tmp_path / "r50.pth")
    cfg = load_config("coco/mask_rcnn_r50_fpn_1x.yaml", [*COMMON, *opts])
    with caplog.at_level(logging.WARNING):
        Builders.build_checkpointer(cfg, build_model(cfg)).load(str(tmp_path / "r50.pth"))
    told = [r.getMessage() for r in caplog.records if " expects " in r.getMessage()]
    assert len(told) == len(expected)
    assert all(key in text for key, text in zip(expected, told, strict=True))


def test_what_does_not_fit_is_described_with_what_would(tmp_path):
    torch.save(torchvision.models.resnet50().state_dict(), tmp_path / "r50.pth")
    model = build("voc/fcn32s_vgg16.yaml", "MODEL.VGG.WIDTH", 8, "MODEL.VGG.FC_CHANNELS", 8)
    with pytest.raises(WeightsError) as caught:
        Checkpointer(model).load(str(tmp_path / "r50.pth"))
    text = str(caught.value)
    assert "It looks like torchvision or timm, ResNet-50: that fits MODEL.BACKBONE.NAME" in text
    assert "MODEL.RESNETS.DEPTH 50" in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [("vgg16", "torchvision VGG"), ("resnet34", "torchvision or timm, ResNet-34"),
     ("resnet101", "torchvision or timm, ResNet-101"), ("squeezenet1_0", "torchvision VGG")],
)  # fmt: skip
def test_descriptions(name, expected):
    with torch.device("meta"):
        state = getattr(torchvision.models, name)().state_dict()
    assert described(state) == expected
