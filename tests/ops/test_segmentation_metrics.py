"""Metric operators, compiled and fallback, against slow counts and pycocotools."""

from __future__ import annotations

from seg_plugins.ops import segmentation_metrics
from seg_plugins.ops._extension import load_extension
from seg_plugins.ops.homotopic_warp import homotopic_warp, simple_points
from seg_plugins.ops.instance_matching import match_instances
from seg_plugins.ops.run_length import (
    RunLengthMasks,
    encode_label_map,
    mask_boundaries,
    mask_iou,
)
from seg_plugins.ops.segmentation_metrics import (
    argmax_confusion,
    label_confusion,
    mask_overlaps,
    pair_counts,
    triple_counts,
)

import cv2
import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch

IGNORE = 255


@pytest.fixture(params=["compiled", "fallback"], autouse=True)
def form(request, monkeypatch):
    """Runs each test on the compiled operators and on the fallback."""
    if request.param == "fallback":
        for module in ("segmentation_metrics", "run_length", "instance_matching", "homotopic_warp"):
            monkeypatch.setattr(f"seg_plugins.ops.{module}.compiled", lambda: False)
    elif not load_extension().loaded:
        pytest.skip(load_extension().reason)
    return request.param


def slow_confusion(labels, target, num_classes, ignore=IGNORE):
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for truth, label in zip(target.ravel().tolist(), labels.ravel().tolist(), strict=True):
        counts[
            num_classes if truth == ignore else truth, num_classes if label == ignore else label
        ] += 1
    return counts


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (33, 1), (37, 129), (64, 2048)])
@pytest.mark.parametrize("num_classes", [1, 2, 19, 70, 300])
def test_argmax_confusion_is_argmax_and_a_count(size, num_classes):
    rng = np.random.default_rng(num_classes)
    target = rng.integers(0, num_classes, size).astype(np.uint16)
    target[rng.random(size) < 0.2] = 65535
    # Few distinct values: ties everywhere, the first must win.
    scores = torch.from_numpy(rng.integers(0, 4, (num_classes, *size)).astype(np.float32))
    labels, confusion = argmax_confusion(scores, target, 65535)
    np.testing.assert_array_equal(labels, scores.argmax(0).numpy())
    np.testing.assert_array_equal(confusion, slow_confusion(labels, target, num_classes, 65535))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_argmax_confusion_of_every_float_type(dtype):
    scores = torch.randn(5, 20, 30, generator=torch.Generator().manual_seed(0)).to(dtype)
    labels, _ = argmax_confusion(scores, np.zeros((20, 30), np.uint8), IGNORE)
    np.testing.assert_array_equal(labels, scores.argmax(0).numpy())


def test_nan_and_infinite_scores_follow_torch():
    values = torch.tensor([torch.nan, -torch.inf, torch.inf, 0.0, 1.0])
    scores = values[torch.randint(5, (6, 8, 90), generator=torch.Generator().manual_seed(1))]
    labels, _ = argmax_confusion(scores, np.zeros((8, 90), np.uint8), IGNORE)
    np.testing.assert_array_equal(labels, scores.argmax(0).numpy())


def test_strided_scores_and_targets():
    scores = torch.randn(24, 40, 3).permute(2, 0, 1)
    target = np.arange(24 * 80, dtype=np.uint8).reshape(24, 80)[:, ::2] % 3
    labels, confusion = argmax_confusion(scores, target, IGNORE)
    np.testing.assert_array_equal(labels, scores.argmax(0).numpy())
    np.testing.assert_array_equal(confusion, slow_confusion(labels, target, 3))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.int64])
def test_label_confusion_of_every_integer_type(dtype):
    rng = np.random.default_rng(2)
    ignore = np.iinfo(dtype).max
    target, labels = (rng.choice([0, 1, 2, ignore], (17, 33)).astype(dtype) for _ in range(2))
    expected = slow_confusion(labels, target, 3, ignore)
    np.testing.assert_array_equal(label_confusion(labels, target, 3, int(ignore)), expected)


@pytest.mark.parametrize("value", [3, 254, -1])
def test_labels_outside_the_classes_raise_with_their_place(value):
    bad = np.zeros((4, 6), np.int16)
    bad[2, 5] = value
    good = np.zeros((4, 6), np.int16)
    message = f"label {value} at row 2, column 5"
    with pytest.raises(ValueError, match="ground-truth " + message):
        label_confusion(good, bad, 3, IGNORE)
    with pytest.raises(ValueError, match="predicted " + message):
        label_confusion(bad, good, 3, IGNORE)
    with pytest.raises(ValueError, match="ground-truth " + message):
        argmax_confusion(torch.zeros(3, 4, 6), bad, IGNORE)


def test_negative_ignore_label():
    target = np.array([[-1, 0, 1]], np.int16)
    assert label_confusion(np.array([[0, 0, 0]]), target, 2, -1)[2, 0] == 1


def test_pair_counts_equal_a_dictionary():
    rng = np.random.default_rng(3)
    colours = rng.integers(0, 2, (11, 13, 3), dtype=np.uint8) * 7
    ids = rng.integers(0, 3, (11, 13)).astype(np.int32) * 70000
    expected: dict[tuple[int, int], int] = {}
    for y in range(11):
        for x in range(13):
            red, green, blue = map(int, colours[y, x])
            pair = (red + 256 * green + 65536 * blue, int(ids[y, x]))
            expected[pair] = expected.get(pair, 0) + 1
    pairs, counts = pair_counts(colours, ids)
    assert [tuple(pair) for pair in pairs.tolist()] == sorted(expected)
    assert dict(zip(map(tuple, pairs.tolist()), counts.tolist(), strict=True)) == expected
    with pytest.raises(ValueError, match="differ in size"):
        pair_counts(colours, ids[:-1])


@pytest.mark.parametrize("size", [(1, 1), (1, 31), (5, 67), (40, 333)])
@pytest.mark.parametrize("segment", [1, 24, 90])
@pytest.mark.parametrize(
    ("first", "second"),
    [(np.uint16, np.uint8), (np.uint8, np.uint16), (np.uint8, np.uint8), (np.int64, np.int32)],
)
def test_pair_counts_of_long_and_short_runs(first, second, size, segment):
    rng = np.random.default_rng(segment)

    def ids(dtype):
        limit = min(np.iinfo(dtype).max, 10**6)
        length = size[0] * size[1]
        chosen = rng.integers(0, limit, length // segment + 1, endpoint=True).astype(dtype)
        return np.repeat(chosen, segment)[:length].reshape(size)

    a, b = ids(first), ids(second)
    pairs, counts = pair_counts(a, b)
    both = np.stack([a.astype(np.int64), b.astype(np.int64)], axis=-1).reshape(-1, 2)
    expected, expected_counts = np.unique(both, axis=0, return_counts=True)
    np.testing.assert_array_equal(pairs, expected)
    np.testing.assert_array_equal(counts, expected_counts)


def test_pair_counts_of_every_id_by_several_threads():
    # Larger than what one thread takes, so that the parts are joined.
    ids = np.arange(1 << 21).astype(np.uint16).reshape(1 << 10, -1)
    labels = (ids % 3).astype(np.uint8)
    pairs, counts = pair_counts(ids, labels)
    np.testing.assert_array_equal(pairs[:, 0], np.arange(65536))
    np.testing.assert_array_equal(pairs[:, 1], np.arange(65536) % 3)
    assert set(counts.tolist()) == {32}


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (33, 131), (1100, 2048)])
@pytest.mark.parametrize("ids", [3, 5000])
@pytest.mark.parametrize("noise", [0.0, 0.1, 1.0])
def test_triple_counts_equal_unique_rows(size, ids, noise):
    rng = np.random.default_rng(ids)
    segments = rng.integers(0, ids, size).astype(np.uint16)
    truths = (segments % 19).astype(np.uint8)  # one true label an id, but for the noise
    wrong = rng.random(size) < noise
    truths[wrong] = rng.integers(0, 256, size)[wrong]
    labels = rng.integers(0, 256, size).astype(np.uint8) if size[1] < 2048 else truths // 2
    triples, counts = triple_counts(segments, truths, labels)
    maps = (segments.astype(np.int64), truths, labels)
    rows = np.stack([part.reshape(-1) for part in maps], axis=1)
    packed, expected = np.unique(rows @ [1 << 16, 1 << 8, 1], return_counts=True)
    np.testing.assert_array_equal(triples @ [1 << 16, 1 << 8, 1], packed)
    np.testing.assert_array_equal(counts, expected)


def test_triple_counts_wants_one_size():
    part = np.zeros((2, 3), np.uint8)
    with pytest.raises(ValueError, match="differ in size"):
        triple_counts(part.astype(np.uint16), part, part[:1])


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_mask_overlaps_equal_boolean_counts(dtype):
    rng = np.random.default_rng(4)
    segments = rng.choice(np.array([0, 7, 26001, 33002], dtype), (19, 45))
    masks = rng.random((5, 19, 45)) < 0.1
    masks[3] = False
    ids, areas, overlaps = mask_overlaps(masks, segments)
    assert ids.tolist() == [0, 7, 26001, 33002]
    assert areas.tolist() == [np.count_nonzero(segments == i) for i in ids]
    for mask, row in zip(masks, overlaps, strict=True):
        assert row.tolist() == [np.count_nonzero(mask & (segments == i)) for i in ids]


def random_masks(rng, count, height, width):
    """Empty, full, single pixels, speckle, rectangles and columns that touch top and bottom."""
    masks = np.zeros((count, height, width), bool)
    for i, mask in enumerate(masks):
        kind = i % 6
        if kind == 1:
            mask[:] = True
        elif kind == 2:
            mask[rng.integers(height), rng.integers(width)] = True
        elif kind == 3:
            mask[:] = rng.random((height, width)) < 0.3
        elif kind == 4:
            y, x = rng.integers(height), rng.integers(width)
            mask[y : y + height // 2 + 1, x : x + width // 2 + 1] = True
        elif kind == 5:
            mask[:, rng.integers(width) :] = True
    return masks


SIZES = [(1, 1), (1, 9), (9, 1), (16, 16), (31, 70), (130, 67)]


@pytest.mark.parametrize("size", SIZES)
def test_masks_encode_byte_for_byte_as_pycocotools(size):
    masks = random_masks(np.random.default_rng(5), 18, *size)
    packed = RunLengthMasks.from_bitmasks(masks)
    for mask, rle in zip(masks, packed.to_coco(), strict=True):
        assert (
            rle["counts"].encode() == coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"]
        )
    np.testing.assert_array_equal(packed.to_bitmasks(), masks)
    assert len(packed[[2, 0]]) == 2
    assert packed[[2, 0]].string(1) == packed.string(0)


def test_values_other_than_one_count_as_set():
    mask = np.array([[[0, 3, 1], [2, 0, 255]]], np.uint8)
    expected = coco_mask.encode(np.asfortranarray(mask[0] != 0, np.uint8))["counts"]
    assert RunLengthMasks.from_bitmasks(mask).string(0) == expected


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_label_maps_encode_as_pycocotools(size, dtype):
    rng = np.random.default_rng(6)
    coarse = rng.integers(0, 4, (size[0] // 5 + 1, size[1] // 5 + 1)) * 60
    labels = np.kron(coarse, np.ones((5, 5)))[: size[0], : size[1]].astype(dtype)
    found = encode_label_map(labels)
    assert list(found) == np.unique(labels).tolist()
    for label, counts in found.items():
        assert counts == coco_mask.encode(np.asfortranarray(labels == label, np.uint8))["counts"]


@pytest.mark.parametrize("size", SIZES)
def test_mask_iou_equals_pycocotools(size):
    rng = np.random.default_rng(7)
    dt, gt = (random_masks(rng, n, *size) for n in (12, 9))
    dt_groups, gt_groups = rng.integers(0, 2, 12), rng.integers(0, 2, 9)
    crowd = rng.random(9) < 0.4
    iou, dt_areas, gt_areas = mask_iou(
        RunLengthMasks.from_bitmasks(dt),
        RunLengthMasks.from_bitmasks(gt),
        detection_groups=dt_groups,
        truth_groups=gt_groups,
        crowd=crowd,
    )
    rles = [[coco_mask.encode(np.asfortranarray(m, np.uint8)) for m in masks] for masks in (dt, gt)]
    expected = coco_mask.iou(*rles, crowd.astype(int).tolist())
    np.testing.assert_array_equal(iou, expected * (dt_groups[:, None] == gt_groups))
    np.testing.assert_array_equal(dt_areas, dt.sum(axis=(1, 2)))
    np.testing.assert_array_equal(gt_areas, gt.sum(axis=(1, 2)))


def test_runs_with_empty_counts_are_read_as_pycocotools_reads_them():
    # 3 background, 2 foreground, 0 background, 4 foreground, 3 background.
    rle = coco_mask.frPyObjects({"size": [3, 4], "counts": [3, 2, 0, 4, 3]}, 3, 4)
    packed = RunLengthMasks.from_coco([rle], 3, 4)
    whole = RunLengthMasks.from_bitmasks(np.ones((1, 3, 4), bool))
    zero, no = np.zeros(1, np.int64), np.zeros(1, bool)
    iou, area, _ = mask_iou(packed, whole, detection_groups=zero, truth_groups=zero, crowd=no)
    assert iou[0, 0] == 0.5
    assert area[0] == 6


@pytest.mark.parametrize("text", [b"\x01", b"zzz", b"PPPP", b"3", b"", b"00", b"`"])
def test_malformed_runs_raise(form, text):
    if form == "fallback":
        pytest.skip("pycocotools reads malformed strings without a check")
    good = RunLengthMasks.from_bitmasks(np.ones((1, 3, 4), bool))
    bad = RunLengthMasks.from_strings([text], 3, 4)
    zero, no = np.zeros(1, np.int64), np.zeros(1, bool)
    with pytest.raises(ValueError, match="run-length mask 0"):
        mask_iou(bad, good, detection_groups=zero, truth_groups=zero, crowd=no)


def test_random_strings_are_read_or_refused(form):
    if form == "fallback":
        pytest.skip("pycocotools reads malformed strings without a check")
    rng = np.random.default_rng(0)
    good = RunLengthMasks.from_bitmasks(np.ones((1, 3, 4), bool))
    zero, no = np.zeros(1, np.int64), np.zeros(1, bool)
    groups = {"detection_groups": zero, "truth_groups": zero, "crowd": no}
    read = 0
    for _ in range(3000):
        text = rng.integers(48, 112 if rng.random() < 0.5 else 64, rng.integers(1, 9), np.uint8)
        bad = RunLengthMasks(3, 4, np.array([0, len(text)]), text)
        try:
            _, area, _ = mask_iou(bad, good, **groups)
        except ValueError:
            continue
        read += 1
        assert area[0] == bad.to_bitmasks().sum()
    assert read > 10


def test_rle_of_another_size_raises():
    rle = coco_mask.encode(np.asfortranarray(np.ones((3, 4), np.uint8)))
    with pytest.raises(ValueError, match="mask 0 is 3x4, its image 4x3"):
        RunLengthMasks.from_coco([rle], 4, 3)


@pytest.mark.parametrize("radius", [1, 2, 5])
@pytest.mark.parametrize("size", [(1, 1), (12, 9), (31, 40)])
def test_mask_boundaries_equal_a_slow_erosion(size, radius):
    masks = random_masks(np.random.default_rng(8), 12, *size)
    bands = mask_boundaries(RunLengthMasks.from_bitmasks(masks), radius).to_bitmasks()
    for mask, band in zip(masks, bands, strict=True):
        padded = np.pad(mask, radius)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * radius + 1,) * 2)
        np.testing.assert_array_equal(band != 0, mask & ~windows.all(axis=(2, 3)))


def test_matching_prefers_truth_that_counts_and_shares_crowds():
    zeros = np.zeros
    # Two detections, three truths: one ignored by area, one crowd.
    iou = np.array([[0.6, 0.9, 0.0], [0.0, 0.0, 0.8]])
    matched, ignored = match_instances(
        np.vstack([iou, [[0.0, 0.0, 0.7]]]),
        detection_groups=zeros(3, np.int64),
        truth_groups=zeros(3, np.int64),
        crowd=np.array([False, False, True]),
        truth_ignored=np.array([[False, True, True]]),
        thresholds=np.array([0.5, 0.65]),
    )
    # At 0.5 the first takes the truth that counts though the ignored one overlaps more; at 0.65
    # only the ignored one is left. Both others may take the crowd.
    assert matched.tolist() == [[[True, True, True], [True, True, True]]]
    assert ignored.tolist() == [[[False, True, True], [True, True, True]]]


def test_matching_takes_each_truth_once_and_never_across_groups():
    matched, _ = match_instances(
        np.array([[0.9, 0.8], [0.9, 0.0], [0.0, 0.9]]),
        detection_groups=np.array([1, 1, 2]),
        truth_groups=np.array([1, 3]),
        crowd=np.zeros(2, bool),
        truth_ignored=np.zeros((1, 2), bool),
        thresholds=np.array([0.5]),
    )
    assert matched.tolist() == [[[True, False, False]]]


def test_simple_points_of_known_neighbourhoods():
    simple = simple_points()
    north, west, east, south = 1 << 1, 1 << 3, 1 << 4, 1 << 6
    assert not simple[0]  # an isolated pixel
    assert not simple[255]  # a pixel inside
    assert simple[north]  # the end of a line
    assert not simple[north | south]  # the middle of a line
    assert not simple[north | east]  # two 4-components meet in the centre
    assert simple[north | east | 1 << 2]  # joined around the corner
    assert simple[255 - (1 << 0)]  # background reaches the centre by a corner
    assert simple[255 - west]


def components(image):
    """Counts of 4-connected foreground and 8-connected background, the outside included."""
    background = np.pad(1 - image, 1, constant_values=1).astype(np.uint8)
    return (
        cv2.connectedComponents(image.astype(np.uint8), connectivity=4)[0],
        cv2.connectedComponents(background, connectivity=8)[0],
    )


@pytest.mark.parametrize("seed", range(4))
def test_warping_keeps_the_topology_and_ends_when_nothing_is_simple(seed):
    rng = np.random.default_rng(seed)
    source, target = ((rng.random((24, 30)) < 0.5).astype(np.uint8) for _ in range(2))
    warped = homotopic_warp(source, target)
    assert components(warped) == components(source)
    assert np.count_nonzero(warped != target) < np.count_nonzero(source != target)
    np.testing.assert_array_equal(homotopic_warp(warped, target), warped)


def test_warping_respects_the_mask_and_reaches_an_equal_topology():
    source, target = np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint8)
    source[4, 4] = 1
    target[2:7, 3:8] = 1
    np.testing.assert_array_equal(homotopic_warp(source, target), target)
    mask = np.zeros((9, 9), np.uint8)
    mask[:, :5] = 1
    expected = source.copy()
    expected[2:7, 3:5] = 1
    np.testing.assert_array_equal(homotopic_warp(source, target, mask), expected)


def test_both_forms_warp_alike(form, monkeypatch):
    if form == "fallback" or not segmentation_metrics.compiled():
        pytest.skip("compares the two forms once")
    rng = np.random.default_rng(9)
    source, target = ((rng.random((40, 31)) < 0.6).astype(np.uint8) for _ in range(2))
    compiled = homotopic_warp(source, target)
    monkeypatch.setattr("seg_plugins.ops.homotopic_warp.compiled", lambda: False)
    np.testing.assert_array_equal(homotopic_warp(source, target), compiled)


def test_operators_do_what_their_schemas_say(form):
    if form == "fallback":
        pytest.skip("about the compiled operators")
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
        (ops.mask_iou, (offsets, data, offsets, data, groups, groups, crowd, 6, 7)),
        (ops.mask_boundaries, (offsets, data, 6, 7, 1)),
        (ops.png_unfilter, (torch.zeros(8, dtype=torch.uint8), 2, 3, 1)),
        (ops.homotopic_warp, (labels, labels, labels, torch.from_numpy(simple_points()))),
    ]
    for operator, arguments in calls:
        torch.library.opcheck(operator.default, arguments, test_utils="test_schema")


def test_operators_refuse_what_they_cannot_read(form):
    if form == "fallback":
        pytest.skip("about the compiled operators")
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
