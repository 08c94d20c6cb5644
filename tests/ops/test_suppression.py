"""Matrix, Fast and mask NMS: the numbers by hand, and slow oracles on random masks and boxes."""

from __future__ import annotations

import math

from seg_plugins.ops.suppression import fast_nms, mask_iou_matrix, mask_nms, matrix_nms

import pytest
import torch

pytestmark = pytest.mark.usefixtures("device")


class Line:
    """Pixels 0-5, 2-7 and 4-9 of a line: IoU of neighbours 0.5, of the outer two 0.2."""

    def __init__(self) -> None:
        self.masks = torch.zeros(3, 1, 10, dtype=torch.bool)
        for mask, start in zip(self.masks, (0, 2, 4), strict=True):
            mask[0, start : start + 6] = True
        self.boxes = torch.tensor([[0.0, 0, 6, 1], [2, 0, 8, 1], [4, 0, 10, 1]])
        self.scores = torch.tensor([0.9, 0.8, 0.7])
        self.one_class = torch.zeros(3, dtype=torch.int64)
        self.distinct = torch.arange(3)


@pytest.fixture
def line(device) -> Line:
    return Line()


def test_iou_of_masks(line):
    expected = torch.tensor([[1, 0.5, 0.2], [0.5, 1, 0.5], [0.2, 0.5, 1]])
    torch.testing.assert_close(mask_iou_matrix(line.masks), expected)
    assert not mask_iou_matrix(torch.zeros(2, 3, 3, dtype=torch.bool)).any()


@pytest.mark.parametrize(
    ("kernel", "expected"), [("gaussian", [0.9, 0.48522, 0.64618]), ("linear", [0.9, 0.4, 0.56])]
)
def test_matrix_nms_by_hand(line, kernel, expected):
    found = matrix_nms(line.masks, line.scores, line.one_class, kernel=kernel, sigma=2.0)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-5)
    # In whatever order they come.
    order = torch.tensor([2, 0, 1])
    found = matrix_nms(
        line.masks[order], line.scores[order], line.one_class, kernel=kernel, sigma=2.0
    )
    torch.testing.assert_close(found, torch.tensor(expected)[order], rtol=0, atol=1e-5)
    assert matrix_nms(line.masks, line.scores, line.distinct, kernel=kernel).equal(line.scores)


def test_of_identical_masks_the_best_stays(line):
    """With the linear kernel the third of them would divide 0 by 0."""
    masks = line.masks[:1].expand(3, -1, -1)
    assert matrix_nms(
        masks, line.scores, line.one_class, kernel="linear"
    ).tolist() == pytest.approx([0.9, 0, 0])
    gaussian = matrix_nms(masks, line.scores, line.one_class, kernel="gaussian", sigma=2.0)
    factor = math.exp(-2)
    assert gaussian.tolist() == pytest.approx([0.9, 0.8 * factor, 0.7 * factor])


def test_fast_nms_by_hand(line):
    assert fast_nms(line.boxes, line.scores, line.one_class, 0.4).tolist() == [True, False, False]
    assert fast_nms(line.boxes, line.scores, line.one_class, 0.5).all()
    assert fast_nms(line.boxes, line.scores, line.distinct, 0.4).all()


def test_mask_nms_by_hand(line):
    assert mask_nms(line.masks, line.scores, line.one_class, 0.4).tolist() == [True, False, True]
    assert mask_nms(line.masks, line.scores, line.one_class, 0.5).all()


def test_an_unknown_kernel_is_refused(line):
    with pytest.raises(ValueError, match="'gaussian' or 'linear', not 'cosine'"):
        matrix_nms(line.masks, line.scores, line.one_class, kernel="cosine")


def test_nothing_gives_nothing():
    masks, none = torch.zeros(0, 4, 4, dtype=torch.bool), torch.zeros(0)
    classes = none.long()
    assert matrix_nms(masks, none, classes).shape == (0,)
    assert mask_nms(masks, none, classes, 0.5).shape == (0,)
    assert fast_nms(torch.zeros(0, 4), none, classes, 0.5).shape == (0,)


def slow_matrix_nms(masks, scores, classes, kernel, sigma):
    """Section 3.3 of the paper, pair by pair."""

    def decay(iou):
        return math.exp(-sigma * iou**2) if kernel == "gaussian" else 1 - iou

    def better(i, j):
        return scores[i] > scores[j] or (scores[i] == scores[j] and i < j)

    def iou(i, j):
        union = (masks[i] | masks[j]).sum().item()
        return (masks[i] & masks[j]).sum().item() / union if union else 0.0

    def rivals(j):
        return [i for i in range(len(masks)) if classes[i] == classes[j] and better(i, j)]

    found = []
    for j in range(len(masks)):
        factors = [1.0]
        for i in rivals(j):
            own = decay(max([0.0, *(iou(k, i) for k in rivals(i))]))
            if own > 0:
                factors.append(decay(iou(i, j)) / own)
        found.append(scores[j].item() * min(factors))
    return found


def slow_greedy(overlap, scores, classes, threshold, *, fast):
    """One after the other, by falling score."""
    kept: list[int] = []
    seen: list[int] = []
    for j in sorted(range(len(scores)), key=lambda i: (-scores[i].item(), i)):
        rivals = seen if fast else kept
        if all(overlap[i][j] <= threshold or classes[i] != classes[j] for i in rivals):
            kept.append(j)
        seen.append(j)
    return [i in kept for i in range(len(scores))]


@pytest.mark.parametrize("seed", range(6))
def test_random_masks_and_boxes_against_loops(device, seed):
    generator = torch.Generator(device).manual_seed(seed)
    count = 25
    low = torch.randint(0, 8, (count, 2), generator=generator)
    size = torch.randint(1, 8, (count, 2), generator=generator)
    boxes = torch.cat([low, low + size], dim=1).float()
    masks = torch.zeros(count, 16, 16, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y0:y1, x0:x1] = True
    # Few different scores: ties are broken by place.
    scores = torch.randint(1, 12, (count,), generator=generator) / 12
    classes = torch.randint(0, 2, (count,), generator=generator)
    for kernel in ("gaussian", "linear"):
        found = matrix_nms(masks, scores, classes, kernel=kernel, sigma=2.0)
        assert found.tolist() == pytest.approx(
            slow_matrix_nms(masks, scores, classes, kernel, 2.0), abs=1e-6
        )
    overlap = mask_iou_matrix(masks).tolist()  # of whole boxes: theirs too
    for threshold in (0.23, 0.47):  # no IoU of such boxes
        assert mask_nms(masks, scores, classes, threshold).tolist() == slow_greedy(
            overlap, scores, classes, threshold, fast=False
        )
        assert fast_nms(boxes, scores, classes, threshold).tolist() == slow_greedy(
            overlap, scores, classes, threshold, fast=True
        )
