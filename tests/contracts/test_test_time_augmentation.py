"""``TEST.AUG`` of every kind of system: what must hold whatever the rule that joins the views."""

from __future__ import annotations

from seg_plugins import load_config
from seg_plugins.config import ConfigError
from seg_plugins.modeling.test_time.augmentation import (
    check_test_time_augmentation,
    with_test_time_augmentation,
)

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Instances
from instance_systems import ONE_STAGE, SIZE, assert_same, build, config_of
from torch import nn

UNRESIZED = ["TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", (0,)]
SMALL = [
    *("MODEL.DEVICE", "cpu", "MODEL.FPN.OUT_CHANNELS", 32, "MODEL.ROI_BOX_HEAD.FC_DIM", 32),
    *("MODEL.RPN.POST_NMS_TOPK_TEST", 10, "TEST.DETECTIONS_PER_IMAGE", 5),
    *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0),
    *("MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", 0.0),
    *("MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", 8),
    *("MODEL.PANOPTIC_DEEPLAB.STUFF_AREA", 8, "MODEL.PANOPTIC_DEEPLAB.CENTER_THRESHOLD", 0.0),
]
PANOPTIC = [
    "panoptic_sem_seg_fpn",
    "panoptic_solo_v2",
    "panoptic_adaptis",
    "panoptic_bottom_up",
]


def image(height: int = SIZE[0], width: int = SIZE[1]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)


def panoptic_system(name: str) -> tuple:
    """A panoptic system with random weights, of classes that differ from pixel to pixel."""
    cfg = load_config(f"shapes/{name}.yaml", [*SMALL, *UNRESIZED])
    torch.manual_seed(1)
    model = build_model(cfg).eval()
    for module in model.sem_seg_head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return cfg, model


@torch.no_grad()
def predict(model: nn.Module, pixels: torch.Tensor, **more: int) -> dict:
    return model.eval()([{"image": pixels, **more}])[0]


def augmented(cfg, model: nn.Module, *, flip: bool) -> nn.Module:
    cfg = cfg.clone()
    cfg.TEST.AUG.FLIP = flip
    return with_test_time_augmentation(cfg, model)


def mirrored(instances: Instances) -> Instances:
    result = Instances(instances.image_size, **instances.get_fields())
    masks = np.asarray(instances.pred_masks)[..., ::-1].astype(bool)
    result.pred_masks = torch.from_numpy(masks.copy())
    return result


@pytest.mark.parametrize("name", ONE_STAGE)
def test_one_stage_systems(name: str) -> None:
    model, cfg = build(name), config_of(name, *UNRESIZED)
    plain = predict(model, image(), height=70, width=90)["instances"]
    assert len(plain) > 0
    # One view of the image as it is: the system itself.
    one = predict(augmented(cfg, model, flip=False), image(), height=70, width=90)["instances"]
    assert_same(one, plain, 1e-6)
    torch.testing.assert_close(one.pred_boxes.tensor, plain.pred_boxes.tensor)
    # The mirror image has the same two views: the result is mirrored.
    both = augmented(cfg, model, flip=True)
    found = predict(both, image())["instances"]
    assert len(found) > 0
    assert_same(predict(both, image().flip(-1))["instances"], mirrored(found), 1e-5)
    # Masks as run lengths are the bitmasks.
    model.mask_format = "bitmask" if model.mask_format == "rle" else "rle"
    other = predict(both, image())["instances"]
    assert np.array_equal(np.asarray(other.pred_masks), np.asarray(found.pred_masks))
    assert torch.equal(other.pred_boxes.tensor, found.pred_boxes.tensor)


@pytest.mark.parametrize("name", PANOPTIC)
def test_panoptic_systems(name: str) -> None:
    cfg, model = panoptic_system(name)
    plain = predict(model, image(), height=70, width=90)
    one = predict(augmented(cfg, model, flip=False), image(), height=70, width=90)
    assert one.keys() == plain.keys() == {"sem_seg", "instances", "panoptic_seg"}
    torch.testing.assert_close(
        one["sem_seg"].softmax(dim=0), plain["sem_seg"].softmax(dim=0), rtol=0, atol=1e-5
    )
    (ids, segments), (plain_ids, plain_segments) = one["panoptic_seg"], plain["panoptic_seg"]
    assert (ids != plain_ids).float().mean() < 1e-3
    assert len(ids.unique()) >= 2
    for found, expected in zip(segments, plain_segments, strict=True):
        assert found["category_id"] == expected["category_id"]
        assert found.get("score", 0) == pytest.approx(expected.get("score", 0), abs=1e-5)

    both = augmented(cfg, model, flip=True)
    found, other = predict(both, image()), predict(both, image().flip(-1))
    torch.testing.assert_close(
        found["sem_seg"].softmax(dim=0).flip(-1), other["sem_seg"].softmax(dim=0)
    )
    assert_same(other["instances"], mirrored(found["instances"]), 1e-5)
    (ids, segments), (other_ids, other_segments) = found["panoptic_seg"], other["panoptic_seg"]
    # Numbers follow the order of instances, which score differently.
    assert (ids.flip(-1) != other_ids).float().mean() < 1e-3
    assert [s["category_id"] for s in segments] == [s["category_id"] for s in other_segments]


@pytest.mark.parametrize("architecture", ["DeepLabV3Plus", "SemanticSegmentor"])
def test_semantic_systems_average_probabilities(architecture: str) -> None:
    opts = [*UNRESIZED, "MODEL.DEVICE", "cpu", "MODEL.META_ARCHITECTURE", architecture]
    cfg = load_config("quickstart/deeplabv3plus_r18_shapes.yaml", opts)
    torch.manual_seed(0)
    model = build_model(cfg)
    pixels = image()
    expected = (
        predict(model, pixels)["sem_seg"].softmax(dim=0)
        + predict(model, pixels.flip(-1))["sem_seg"].softmax(dim=0).flip(-1)
    ) / 2
    both = augmented(cfg, model, flip=True)
    found = predict(both, pixels)["sem_seg"]
    torch.testing.assert_close(found.exp(), expected)
    symmetric = torch.maximum(pixels, pixels.flip(-1))
    found = predict(both, symmetric)["sem_seg"]
    torch.testing.assert_close(found, found.flip(-1))


def test_offsets_turn_and_grow_with_the_views() -> None:
    """Centres that are known exactly are found from views of every size, mirrored or not."""
    cfg, model = panoptic_system("panoptic_bottom_up")
    thing = model.thing_ids[0]

    def known_maps(batch):
        # One centre at 0.25 of the width and 0.5 of the height, seen in the image by its colour.
        rows, columns = batch.tensor.shape[-2:]
        height, width = batch.image_sizes[0]
        row = batch.tensor[0, 0, 0, :width]
        left = row[: width // 2].mean() > row[width // 2 :].mean()
        x = 0.25 * width if left else 0.75 * width
        ys, xs = torch.arange(rows) + 0.5, torch.arange(columns) + 0.5
        offsets = torch.stack(
            [(0.5 * height - ys)[:, None].expand(rows, columns), (x - xs).expand(rows, columns)]
        )
        near = ((ys - 0.5 * height) / height)[:, None] ** 2 + ((xs - x) / width) ** 2
        logits = torch.full((1, model.num_classes, rows, columns), -10.0)
        logits[:, thing] = 10
        return logits, torch.exp(-20 * near)[None, None], offsets[None]

    model._maps = known_maps
    cfg.TEST.AUG.MIN_SIZES = (32, 64, 128)
    pixels = torch.zeros(3, 64, 96, dtype=torch.uint8)
    pixels[:, :, :48] = 255
    seen = {}

    def group(logits, heatmap, offsets):
        seen.update(heatmap=heatmap, offsets=offsets)
        return {}

    model.merged = group
    predict(augmented(cfg, model, flip=True), pixels)
    place = int(seen["heatmap"][0].argmax())
    assert abs(place // 96 + 0.5 - 32) <= 1
    assert abs(place % 96 + 0.5 - 24) <= 1
    # From the pixel in row 10, column 70, away from the borders where resizing holds values.
    down, across = seen["offsets"][:, 10, 70].tolist()
    assert down == pytest.approx(32 - 10.5, abs=0.01)
    assert across == pytest.approx(24 - 70.5, abs=0.01)


def test_a_system_of_your_own_says_how_its_views_are_put_together() -> None:
    class Counting(nn.Module):
        """Its prediction is the sizes of the views."""

        def predict_views(self, views) -> dict:
            return {"sizes": [view.size for view in views], "wanted": (views.height, views.width)}

    cfg = load_config("shapes/mask_rcnn_r18_fpn.yaml", [*UNRESIZED, "TEST.AUG.MIN_SIZES", (0, 32)])
    found = predict(with_test_time_augmentation(cfg, Counting()), image(), height=10, width=20)
    assert found == {"sizes": [SIZE, SIZE, (32, 48), (32, 48)], "wanted": (10, 20)}


@pytest.mark.parametrize("name", ["RetinaNet", "PanopticFPN"])
def test_systems_without_a_rule_are_refused(name: str) -> None:
    cfg = load_config("shapes/mask_rcnn_r18_fpn.yaml", UNRESIZED)
    cfg.MODEL.META_ARCHITECTURE = name
    with pytest.raises(ConfigError, match=rf"{name}.* Set TEST\.AUG\.ENABLED False"):
        check_test_time_augmentation(cfg)
    cfg.TEST.AUG.ENABLED = False
    check_test_time_augmentation(cfg)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["TEST.AUG.MIN_SIZES", ()], r"MIN_SIZES \(\) should be .* \"\(400, 800\)\""),
        (["TEST.AUG.MIN_SIZES", (400, -1)], "MIN_SIZES"),
        (["TEST.AUG.MAX_SIZE", 0], "TEST.AUG.MAX_SIZE 0 should be"),
        (["MODEL.KEYPOINT_ON", True], "MODEL.KEYPOINT_ON True: set one of them False"),
    ],
)
def test_values_that_cannot_work(opts: list, message: str) -> None:
    cfg = load_config("shapes/mask_rcnn_r18_fpn.yaml", [*UNRESIZED, *opts])
    with pytest.raises(ConfigError, match=message):
        check_test_time_augmentation(cfg)
