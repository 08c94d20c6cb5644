"""AdaptIS's networks and what it learns from: numbers by hand and plain loops."""

from __future__ import annotations

from seg_plugins.modeling.instance_representations.adaptis_network import (
    AdaIN,
    MaskNetwork,
    PointController,
    ProposalHead,
    adaptive_instance_norm,
    features_at,
    relative_coordinates,
)
from seg_plugins.modeling.instance_representations.adaptis_points import (
    draw_points,
    normalized_focal_losses,
    point_labels,
)
from seg_plugins.modeling.instance_representations.base import Truth

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Instances


def truth(*masks, classes=None):
    """Of one image, from (H, W) masks."""
    stack = torch.stack(masks)
    instances = Instances(stack.shape[1:])
    instances.gt_masks = BitMasks(stack)
    instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    instances.gt_classes = torch.zeros(len(stack)).long() if classes is None else classes
    return Truth(instances, torch.device("cpu"))


def box(top, left, bottom, right, size=(20, 30)):
    mask = torch.zeros(size, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def no_objects(size=(20, 30)):
    return truth(box(0, 0, 0, 0, size))


class TestAdaIN:
    def test_by_hand(self):
        x = torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 2)
        found = adaptive_instance_norm(x, torch.tensor([[2.0]]), torch.tensor([[0.5]]))
        assert found.flatten().tolist() == pytest.approx([-1.5, 2.5], abs=1e-4)

    def test_each_map_has_its_own_statistics_and_code(self):
        x, scale, shift = torch.randn(3, 4, 5, 6) * 3 + 1, torch.randn(3, 4), torch.randn(3, 4)
        found = adaptive_instance_norm(x, scale, shift)
        for m in range(3):
            for c in range(4):
                own = x[m, c]
                flat = (own - own.mean()) / (own.var(correction=0) + 1e-5).sqrt()
                torch.testing.assert_close(found[m, c], flat * scale[m, c] + shift[m, c])

    def test_begins_near_a_plain_norm(self):
        x = torch.randn(2, 8, 6, 6)
        found = AdaIN(16, 8)(x, torch.zeros(2, 16))
        torch.testing.assert_close(found, torch.nn.functional.instance_norm(x))


def test_coordinates_by_hand():
    # The middle of pixel (row 5, column 2) on a grid of stride 4, radius 8.
    found = relative_coordinates(torch.tensor([[2.5, 5.5]]), (2, 4), 4, 8.0)[0]
    assert found[0, :, 0].tolist() == [(2 - 5.5) / 8, (6 - 5.5) / 8]
    assert found[1, 0].tolist() == [(2 - 2.5) / 8, (6 - 2.5) / 8, (10 - 2.5) / 8, 1]
    assert found[2, 1, 1].item() == pytest.approx(np.hypot(0.5, 3.5) / 8)
    assert found[2, 0, 3] == 1  # farther than the radius


def test_features_at_points():
    features = torch.arange(12.0).reshape(1, 1, 3, 4)  # stride 4 in an image of 12 x 16
    points = torch.tensor([[[2.0, 2.0], [14.0, 10.0], [4.0, 2.0], [2.0, 8.0], [0.0, 0.0]]])
    found = features_at(features, points, (12, 16))[0, :, 0]
    torch.testing.assert_close(found, torch.tensor([0.0, 11.0, 0.5, 6.0, 0.0]))


class TestMaskNetwork:
    @pytest.mark.parametrize("separable", [True, False])
    def test_shares_the_first_convolution(self, separable):
        network = MaskNetwork(5, 8, 6, "BN", separable).eval()
        features, places = torch.randn(2, 5, 7, 9), torch.randn(3, 3, 7, 9)
        codes, images = torch.randn(3, 6), torch.tensor([1, 0, 1])
        found = network(network.shared(features), images, codes, places)
        together = torch.cat([places, features[images]], dim=1)
        x = network.adain(network.start(network.first(together)), codes)
        torch.testing.assert_close(found, network.end(x)[:, 0], rtol=1e-4, atol=1e-5)

    def test_parameters_of_both_sizes(self):
        def count(module):
            return sum(parameter.numel() for parameter in module.parameters())

        # The toy head of the reference implementation: 32 features, 32 channels.
        adain, norm = 2 * (32 * 32 + 32), 64
        start = (35 + 32 + 32) * 32 * 9 + 3 * (32 + norm)
        end = 32 * 16 * 9 + 16 + 32 + 16 + 1
        assert count(MaskNetwork(32, 32, 32, "BN", False)) == start + adain + end == 35585
        assert count(PointController(32, 32, "BN")) == 3 * (32 * 32 + 32 + norm) == 3360
        assert count(ProposalHead(32, 32, "BN", False)) == 2 * (32 * 32 * 9 + 32 + norm) + 33
        # Its Cityscapes head: 256 features, 128 channels, separable convolutions.
        steps = [(128, 128), (128, 128), (128, 64), (64, 32)]
        separable = sum(9 * a + a * b + 2 * b for a, b in steps)
        first, last = 259 * 128 * 9 + 128 + 256, 128 * 128 + 128
        adain = 2 * (128 * 128 + 128)
        found = count(MaskNetwork(256, 128, 128, "BN", True))
        assert found == first + separable + last + adain + 33


class TestFocal:
    def test_by_hand(self):
        """Probability and alpha of a half: the weights are alike, and the scale undoes them."""
        targets = torch.rand(2, 4, 4) > 0.5
        found = normalized_focal_losses(
            torch.zeros(2, 4, 4), targets, torch.ones_like(targets), alpha=0.5
        )
        assert found.tolist() == pytest.approx([0.34657, 0.34657], abs=1e-5)

    @pytest.mark.parametrize("gamma", [2.0, 1.5])
    def test_equals_a_plain_loop(self, gamma):
        torch.manual_seed(0)
        logits = torch.randn(3, 5, 6, dtype=torch.float64, requires_grad=True)
        targets, valid = torch.rand(3, 5, 6) > 0.6, torch.rand(3, 5, 6) > 0.2
        expected = []
        for maps in zip(logits, targets, valid, strict=True):
            terms = [
                (logit.sigmoid() if inside else 1 - logit.sigmoid(), 0.3 if inside else 0.7)
                for logit, inside, counts in zip(*(m.flatten() for m in maps), strict=True)
                if counts
            ]
            weights = sum((1 - p.item()) ** gamma for p, _ in terms)
            scale = len(terms) / weights  # no gradient goes through it
            losses = [-alpha * scale * (1 - p) ** gamma * p.log() for p, alpha in terms]
            expected.append(sum(losses) / len(terms))
        expected = torch.stack(expected)
        (gradient,) = torch.autograd.grad(expected.sum(), logits)
        again = logits.detach().float().requires_grad_()
        found = normalized_focal_losses(again, targets, valid, alpha=0.3, gamma=gamma)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
        found.sum().backward()
        torch.testing.assert_close(again.grad.double(), gradient, rtol=1e-4, atol=1e-6)

    def test_nothing_valid_and_sure_logits_are_finite(self):
        logits = torch.tensor([200.0, -200.0]).reshape(2, 1, 1).requires_grad_()
        targets = torch.tensor([True, True]).reshape(2, 1, 1)
        found = normalized_focal_losses(logits, targets, torch.ones_like(targets))
        assert found[0] == 0
        assert found[1].item() == pytest.approx(50)  # 0.25 * 200
        nothing = normalized_focal_losses(logits, targets, torch.zeros_like(targets))
        assert nothing.tolist() == [0, 0]
        nothing.sum().backward()
        assert not logits.grad.any()


class TestPoints:
    def test_lie_on_their_objects(self):
        one = truth(box(2, 3, 9, 12), box(0, 20, 4, 30), box(19, 29, 20, 30))
        other = truth(box(0, 0, 10, 7, size=(10, 14)))
        drawn = draw_points([one, other], 50, (24, 32))
        assert drawn.images.tolist() == [0] * 50 + [1] * 50
        columns, rows = (drawn.positions - 0.5).long().T
        assert (drawn.positions % 1 == 0.5).all()
        assert drawn.masks[torch.arange(100), rows, columns].all()
        assert drawn.used.all()
        assert drawn.valid[0].sum() == 20 * 30
        assert drawn.valid[50].sum() == 10 * 14
        seen = {tuple(m.flatten().nonzero()[0].tolist()) for m in drawn.masks[:50]}
        assert len(seen) == 3  # one of a single pixel, too

    def test_all_pixels_are_drawn_alike(self):
        torch.manual_seed(0)
        mask = box(1, 1, 3, 3) | box(10, 28, 12, 30)
        drawn = draw_points([truth(mask)], 4000, (20, 30))
        _, counts = drawn.positions.unique(dim=0, return_counts=True)
        assert len(counts) == 8
        assert (counts - 500).abs().max() < 100

    def test_on_one_object(self):
        both = truth(box(0, 0, 5, 5), box(9, 9, 15, 15))
        drawn = draw_points([both], 20, (20, 30), one_object=True)
        assert (drawn.masks == drawn.masks[0]).all()

    def test_no_objects(self):
        drawn = draw_points([no_objects(), truth(box(0, 0, 5, 5))], 4, (20, 30))
        assert drawn.used.tolist() == [False] * 4 + [True] * 4
        assert not drawn.valid[:4].any()

    def test_many_objects(self):
        masks = [box(i // 30, i % 30, i // 30 + 1, i % 30 + 1) for i in range(600)]
        drawn = draw_points([truth(*masks)], 6, (20, 30))
        assert drawn.masks.flatten(1).sum(dim=1).tolist() == [1] * 6


class TestPointLabels:
    @staticmethod
    def by_the_reference(probabilities, mask):
        found = [p > 0.5 for p in probabilities]
        ious = np.array([(f & mask).sum() / max((f | mask).sum(), 1) for f in found])
        quality = ious * np.array([p[mask].mean() for p in probabilities])
        if ious.max() - ious.min() > 0.1:
            least = np.percentile(quality, 30) * 0.95
        else:
            least = quality.min() * 0.99
        good = quality > least
        labels = good.astype(float)
        low, high = quality[good].min(), quality[good].max()
        if high - low > 1e-3:
            labels[good] = 0.7 + 0.3 * (quality[good] - low) / (high - low)
        return labels

    @pytest.mark.parametrize("noise", [0.0, 0.3, 4.0])
    def test_equals_a_plain_loop(self, noise):
        rng = np.random.default_rng(0)
        masks = np.zeros((5, 12, 15), bool)
        for mask in masks:
            y, x = rng.integers(0, (6, 8))
            mask[y : y + 6, x : x + 7] = True
        strength = rng.uniform(0, noise, (5, 9, 1, 1))
        logits = (masks[:, None] * 4.0 - 2) + rng.normal(size=(5, 9, 12, 15)) * strength
        probabilities = 1 / (1 + np.exp(-logits))
        repeated = np.repeat(masks[:, None], 9, axis=1)
        labels, found = point_labels(torch.tensor(probabilities), torch.tensor(repeated))
        expected = [self.by_the_reference(*pair) for pair in zip(probabilities, masks, strict=True)]
        np.testing.assert_allclose(labels, expected, atol=1e-4)
        assert found.all()
        assert (labels == 0).any() == (noise == 4.0)

    def test_an_object_that_no_point_finds_teaches_nothing(self):
        mask = torch.zeros(1, 3, 4, 4, dtype=torch.bool)
        mask[..., 0] = True
        _, found = point_labels(torch.zeros(1, 3, 4, 4), mask)
        assert found.tolist() == [False]
        labels, found = point_labels(torch.zeros(1, 3, 4, 4), torch.zeros_like(mask))
        assert found.tolist() == [False]
        assert labels.isfinite().all()
