"""Counts of labels and ids, compiled and fallback, against slow counts."""

from __future__ import annotations

from seg_plugins.ops.segmentation_metrics import (
    argmax_confusion,
    label_confusion,
    mask_overlaps,
    pair_counts,
    triple_counts,
)

import numpy as np
import pytest
import torch
from devices import host_waits, on_each_device

pytestmark = pytest.mark.usefixtures("form")
IGNORE = 255


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


@on_each_device
@pytest.mark.parametrize("num_classes", [3, 300])
def test_scores_of_a_device_are_counted_with_one_copy(device, num_classes):
    rng = np.random.default_rng(0)
    target = rng.integers(0, num_classes, (20, 30)).astype(np.uint16)
    scores = torch.from_numpy(rng.integers(0, 4, (num_classes, 20, 30)).astype(np.float32))
    on_device = scores.to(device)
    with host_waits(device) as found:
        labels, confusion = argmax_confusion(on_device, target, 65535)
    assert device == "cpu" or len(found) == 1
    np.testing.assert_array_equal(labels, scores.argmax(0).numpy())
    np.testing.assert_array_equal(confusion, slow_confusion(labels, target, num_classes, 65535))


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
    colors = rng.integers(0, 2, (11, 13, 3), dtype=np.uint8) * 7
    ids = rng.integers(0, 3, (11, 13)).astype(np.int32) * 70000
    expected: dict[tuple[int, int], int] = {}
    for y in range(11):
        for x in range(13):
            red, green, blue = map(int, colors[y, x])
            pair = (red + 256 * green + 65536 * blue, int(ids[y, x]))
            expected[pair] = expected.get(pair, 0) + 1
    pairs, counts = pair_counts(colors, ids)
    assert [tuple(pair) for pair in pairs.tolist()] == sorted(expected)
    assert dict(zip(map(tuple, pairs.tolist()), counts.tolist(), strict=True)) == expected
    with pytest.raises(ValueError, match="differ in size"):
        pair_counts(colors, ids[:-1])


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
