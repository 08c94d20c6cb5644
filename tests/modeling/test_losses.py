import math

from seg_plugins.modeling.losses import SemanticLoss, global_mean

import pytest
import torch


def test_cross_entropy_is_the_mean_over_valid_pixels() -> None:
    # Two valid pixels with class probabilities 1/4 and 3/4; a third one is ignored.
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)], [5.0, -5.0]]).T.reshape(
        1, 2, 1, 3
    )
    targets = torch.tensor([[[0, 1, 255]]])
    expected = (math.log(4) + math.log(4 / 3)) / 2
    assert SemanticLoss(num_classes=2)(logits, targets).item() == pytest.approx(expected)


def test_one_class_is_sigmoid_cross_entropy() -> None:
    logits = torch.tensor([[[[math.log(3), 0.0, 7.0]]]])
    targets = torch.tensor([[[1, 0, 255]]])
    expected = (math.log(4 / 3) + math.log(2)) / 2
    assert SemanticLoss(num_classes=1)(logits, targets).item() == pytest.approx(expected)


def test_pixel_and_class_weights_multiply() -> None:
    logits, targets = torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]])
    loss = SemanticLoss(num_classes=2, class_weights=[2.0, 5.0])
    weights = torch.tensor([[[3.0, 1.0]]])
    assert loss(logits, targets, weights).item() == pytest.approx(math.log(2) * (6 + 5) / 2)


def test_all_pixels_ignored_gives_zero_and_a_zero_gradient() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = SemanticLoss(num_classes=3)(logits, torch.full((1, 2, 2), 255))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_global_mean_of_two_processes_is_the_mean_of_all_pixels(monkeypatch) -> None:
    # Process 0 has 3 pixels with sum 6, process 1 has 1 pixel with sum 10: (6 + 10) / 4.
    module = "seg_plugins.modeling.losses."
    monkeypatch.setattr(module + "comm.get_world_size", lambda: 2)
    monkeypatch.setattr(module + "dist.all_reduce", lambda count: count.fill_(4))
    parts = [global_mean(torch.tensor(6.0), torch.tensor(3)),
             global_mean(torch.tensor(10.0), torch.tensor(1))]  # fmt: skip
    assert torch.stack(parts).mean().item() == pytest.approx(4.0)
