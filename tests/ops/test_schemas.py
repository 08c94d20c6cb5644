"""The compiled operators of the evaluators: their schemas, and what they refuse."""

from __future__ import annotations

from seg_plugins.ops._extension import load_extension
from seg_plugins.ops.homotopic_warp import simple_points

import pytest
import torch

pytestmark = pytest.mark.skipif(not load_extension().loaded, reason=load_extension().reason or "")


def test_operators_do_what_their_schemas_say():
    ops = torch.ops.seg_plugins
    labels = torch.randint(0, 3, (6, 7), dtype=torch.uint8)
    masks = torch.rand(4, 6, 7) < 0.4
    offsets, data = ops.encode_masks(masks)
    groups, crowd = torch.zeros(4, dtype=torch.long), torch.zeros(4, dtype=torch.bool)
    calls = [
        (ops.argmax_confusion, (torch.rand(3, 6, 7), labels, 255)),
        (ops.label_confusion, (labels, labels, 3, 255)),
        (ops.pair_counts, (labels, labels.int())),
        (ops.triple_counts, (labels.to(torch.uint16), labels, labels)),
        (ops.mask_overlaps, (masks, labels.int())),
        (ops.encode_label_map, (labels,)),
        (ops.encode_masks, (masks,)),
        (ops.mask_areas, (offsets, data, 6, 7)),
        (ops.boundary_iou, (offsets, data, offsets, data, groups, groups, crowd, 6, 7, 1)),
        (ops.homotopic_warp, (labels, labels, labels, torch.from_numpy(simple_points()))),
    ]
    for operator, arguments in calls:
        torch.library.opcheck(operator.default, arguments, test_utils="test_schema")


def test_operators_refuse_what_they_cannot_read():
    ops = torch.ops.seg_plugins
    labels, masks = torch.zeros(2, 3, dtype=torch.uint8), torch.zeros(1, 2, 3, dtype=torch.bool)
    for operator, arguments, message in (
        (ops.argmax_confusion, (torch.zeros(3, 2, 4), labels, 255), "differ in size"),
        (ops.argmax_confusion, (torch.zeros(2, 3), labels, 255), "float32 of shape"),
        (ops.label_confusion, (labels.float(), labels, 3, 255), "labels must be uint8"),
        (ops.mask_overlaps, (masks, labels[:1].int()), "differ in size"),
        (ops.mask_overlaps, (masks, labels.int() - 1), "segment id -1 is outside"),
        (ops.encode_masks, (labels,), r"shape \(N, H, W\)"),
        (ops.encode_label_map, (labels.long(),), "uint8 or uint16"),
    ):
        with pytest.raises(ValueError, match=message):
            operator(*arguments)
