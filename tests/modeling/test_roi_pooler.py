from __future__ import annotations

from seg_plugins.modeling.roi_pooler import FusedROIPooler, boxes_with_index
from seg_plugins.ops import roi_align
from seg_plugins.ops.roi_align_reference import assign_levels

import pytest
import torch
import torchvision
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.structures import Boxes

pytestmark = pytest.mark.usefixtures("device")
SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32]


def pyramid(batch=2, channels=5, dtype=torch.float32):
    return [torch.randn(batch, channels, 256 // s, 320 // s, dtype=dtype) for s in (4, 8, 16, 32)]


def random_boxes(count):
    corner = torch.rand(count, 2) * 250
    size = torch.exp(torch.rand(count, 2) * 4 + 1)
    return Boxes(torch.cat([corner, corner + size], dim=1))


@pytest.mark.parametrize("pooler_type", ["ROIAlign", "ROIAlignV2", "ROIPool"])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("levels", [1, 4])
def test_equals_detectron2s_pooler(pooler_type, sampling_ratio, levels):
    arguments = (7, SCALES[-levels:], sampling_ratio, pooler_type)
    features = pyramid()[-levels:]
    boxes = [random_boxes(30), random_boxes(17)]
    ours = FusedROIPooler(*arguments)(features, boxes)
    theirs = ROIPooler(*arguments)(features, boxes)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooler_type", ["ROIAlign", "ROIAlignV2", "ROIAlignMax", "ROIPool"])
@pytest.mark.parametrize("levels", [1, 2])
def test_float64_keeps_its_digits_and_its_gradient(pooler_type, levels):
    maps = [f.requires_grad_() for f in pyramid(1, 2, torch.float64)[:levels]]
    pooler = FusedROIPooler(2, SCALES[:levels], 2, pooler_type, 56, 2)
    lists = [Boxes(torch.tensor([[3.0, 5, 90, 80], [10, 20, 31, 40], [60, 8, 250, 200]]))]
    pooled = pooler(maps, lists)
    assert pooled.dtype == torch.float64
    assert not torch.equal(pooled, pooled.float().double())
    weights = torch.randn_like(pooled)
    # Along one direction: a map has thousands of values.
    step = [torch.randn_like(f) for f in maps]
    gradients = torch.autograd.grad((pooled * weights).sum(), maps)
    slope = sum((g * s).sum() for g, s in zip(gradients, step, strict=True))
    ends = [
        (pooler([f + e * s for f, s in zip(maps, step, strict=True)], lists) * weights).sum()
        for e in (1e-7, -1e-7)
    ]
    torch.testing.assert_close((ends[0] - ends[1]) / 2e-7, slope, rtol=1e-5, atol=1e-6)


def test_roi_pool_in_float64_equals_torchvision_and_can_be_differentiated():
    boxes = [random_boxes(9), random_boxes(5)]
    maps = pyramid(dtype=torch.float64)[:1]
    pooled = FusedROIPooler(7, SCALES[:1], 0, "ROIPool")(maps, boxes)
    rois = boxes_with_index(boxes).double()
    assert torch.equal(pooled, torchvision.ops.roi_pool(maps[0], rois, 7, SCALES[0]))
    few = torch.randn(1, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    lists = [Boxes(torch.tensor([[0.0, 0, 30, 30], [8, 4, 26, 31]]))]
    pooler = FusedROIPooler(2, SCALES[:1], 0, "ROIPool")
    assert torch.autograd.gradcheck(lambda x: pooler([x], lists), (few,), nondet_tol=1e-12)


@pytest.mark.parametrize("pooler_type", ["ROIAlign", "ROIAlignV2", "ROIAlignMax"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_half_precision_maps_are_pooled_in_float32(pooler_type, dtype, tolerance):
    boxes = [random_boxes(30), random_boxes(17)]
    maps = pyramid(dtype=dtype)
    pooler = FusedROIPooler(7, SCALES, 0, pooler_type)
    pooled = pooler(maps, boxes)
    assert pooled.dtype == dtype
    expected = pooler([f.double() for f in maps], boxes)
    torch.testing.assert_close(pooled.double(), expected, rtol=tolerance, atol=tolerance)


def test_rotated_boxes_are_refused():
    with pytest.raises(ValueError, match="'ROIAlignRotated'; choose one of ROIAlignV2"):
        FusedROIPooler(7, SCALES, 0, "ROIAlignRotated")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_roi_pool_of_half_precision_maps_selects_the_same_values(dtype):
    """A maximum of rounded values is one of them: nothing is rounded again."""
    boxes = [random_boxes(30), random_boxes(17)]
    maps = pyramid(dtype=dtype)
    pooler = FusedROIPooler(7, SCALES, 0, "ROIPool")
    pooled = pooler(maps, boxes)
    assert pooled.dtype == dtype
    assert torch.equal(pooled.float(), pooler([m.float() for m in maps], boxes))


def test_gradients_equal_detectron2s():
    boxes = [random_boxes(30), random_boxes(17)]
    maps = [f.requires_grad_() for f in pyramid()]
    gradients = []
    weights = torch.randn(47, 5, 7, 7)
    for kind in (FusedROIPooler, ROIPooler):
        pooled = kind(7, SCALES, 0, "ROIAlignV2")(maps, boxes)
        gradients.append(torch.autograd.grad((pooled * weights).sum(), maps))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("boxes", [[0, 0], [3, 0], [0, 4]])
def test_images_without_boxes(boxes):
    lists = [random_boxes(n) for n in boxes]
    pooled = FusedROIPooler(7, SCALES, 0, "ROIAlignV2")(pyramid(), lists)
    expected = ROIPooler(7, SCALES, 0, "ROIAlignV2")(pyramid(), lists)
    assert pooled.shape == expected.shape == (sum(boxes), 5, 7, 7)
    assert pooled.dtype == expected.dtype


def test_a_pyramid_without_boxes_gets_zero_gradients():
    features = [f.requires_grad_() for f in pyramid()]
    pooled = FusedROIPooler(7, SCALES, 0, "ROIAlignV2")(features, [Boxes(torch.zeros(0, 4))] * 2)
    pooled.sum().backward()
    assert all(not f.grad.any() for f in features)


def test_no_images():
    pooled = FusedROIPooler((3, 2), SCALES, 0, "ROIAlignV2")([f[:0] for f in pyramid()], [])
    assert pooled.shape == (0, 5, 3, 2)


def test_outputs_need_not_be_square():
    features, boxes = pyramid(), [random_boxes(9), random_boxes(3)]
    wide = FusedROIPooler((2, 6), SCALES, 2, "ROIAlignV2")(features, boxes)
    single = FusedROIPooler((2, 6), SCALES[:1], 2, "ROIAlignV2")(features[:1], boxes)
    assert wide.shape == (12, 5, 2, 6)
    expected = torchvision.ops.roi_align(
        features[0], boxes_with_index(boxes), (2, 6), SCALES[0], 2, True
    )
    torch.testing.assert_close(single, expected, rtol=0, atol=1e-5)


def test_maximum_is_never_below_the_mean():
    features, boxes = pyramid(), [random_boxes(9), random_boxes(3)]
    mean = FusedROIPooler(7, SCALES, 2, "ROIAlignV2")(features, boxes)
    maximum = FusedROIPooler(7, SCALES, 2, "ROIAlignMax")(features, boxes)
    assert (maximum >= mean - 1e-5).all()


def level_edges(canonical_box_size, canonical_level, levels):
    """Areas around every edge between levels, one float32 apart, and their boxes."""
    edges = torch.tensor(
        [(canonical_box_size * 2.0 ** (level - canonical_level)) ** 2 for level in levels]
    )
    steps = torch.arange(-2000, 2001, dtype=torch.int32)
    areas = (edges.view(torch.int32)[:, None] + steps).flatten().view(torch.float32)
    return areas


@pytest.mark.parametrize(("canonical_box_size", "canonical_level"), [(224, 4), (112, 3), (100, 4)])
def test_levels_equal_detectron2s_at_every_edge(canonical_box_size, canonical_level):
    """Boxes of one pixel's height whose area is within 2000 float32 steps of a level's edge."""
    areas = level_edges(canonical_box_size, canonical_level, [3, 4, 5])
    boxes = torch.stack([areas * 0, areas * 0, areas, torch.ones_like(areas)], dim=1)
    theirs = assign_boxes_to_levels([Boxes(boxes)], 2, 5, canonical_box_size, canonical_level)
    indexed = torch.cat([areas[:, None] * 0, boxes], dim=1)
    reference = assign_levels(indexed, 4, canonical_box_size, canonical_level, 2)
    torch.testing.assert_close(reference, theirs, rtol=0, atol=0)
    # The operator does not tell its choice, but maps that hold their level's number do.
    features = [torch.full((1, 1, 1, 2**18), float(level)) for level in range(4)]
    pooled = roi_align(
        features, indexed, 1, SCALES, 1, True, "avg", canonical_box_size, canonical_level
    )
    torch.testing.assert_close(pooled.flatten().round().long(), theirs, rtol=0, atol=0)


def test_two_poolers_of_one_model_keep_the_state_dict_empty():
    assert not FusedROIPooler(7, SCALES, 0, "ROIAlignV2").state_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooler_type": "ROIAlignV3"}, "ROIAlignMax"),
        ({"scales": [1 / 4, 1 / 16]}, "halve"),
        ({"scales": [1 / 3]}, "power of two"),
        ({"canonical_box_size": 0}, "positive"),
    ],
)
def test_wrong_arguments_say_what_is_right(change, message):
    arguments = {
        "output_size": 7,
        "scales": SCALES,
        "sampling_ratio": 0,
        "pooler_type": "ROIAlignV2",
    }
    with pytest.raises(ValueError, match=message):
        FusedROIPooler(**{**arguments, **change})


def test_wrong_inputs_say_what_is_right():
    pooler = FusedROIPooler(7, SCALES, 0, "ROIAlignV2")
    with pytest.raises(ValueError, match="4 scales but got 3 maps"):
        pooler(pyramid()[:3], [random_boxes(1)] * 2)
    with pytest.raises(ValueError, match="boxes of 1 images"):
        pooler(pyramid(), [random_boxes(1)])
