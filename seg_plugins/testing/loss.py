"""What a loss of :data:`~seg_plugins.modeling.losses.LOSS_REGISTRY` must do."""

from __future__ import annotations

import torch

from ..modeling.loss_terms import Loss
from ..modeling.semantic_loss import SemanticLoss

_IGNORED = 255


def check_loss(loss_type: str, *, classes: tuple[int, ...] = (1, 4)) -> None:
    """Hold a loss against the contract.

    It is a float32 scalar with a finite gradient; ignored pixels have no part in either; where all
    are ignored it is 0; half precision makes no difference; and NaN in the scores stays NaN.

    Args:
        loss_type: as in ``MODEL.SEM_SEG_HEAD.LOSS_TYPE``, with options.
        classes: numbers of classes to try; 1 is a sigmoid.

    Raises:
        AssertionError: names what does not hold.
    """
    for count in classes:
        loss = SemanticLoss(loss_type=loss_type, num_classes=count, ignore_value=_IGNORED)
        where = f"{loss_type} with {count} class{'es' if count > 1 else ''}"
        targets = torch.randint(0, max(count, 2), (2, 6, 6))
        targets[:, :, 3:] = _IGNORED
        scores = torch.randn(2, count, 6, 6)
        value, gradient = _step(loss, scores, targets)
        assert value.shape == (), f"{where}: not a scalar but {tuple(value.shape)}"
        assert value.dtype == torch.float32, f"{where}: {value.dtype}"
        assert value.isfinite(), f"{where}: {value.item()}"
        assert gradient.isfinite().all(), f"{where}: the gradient is not finite"
        assert not gradient[..., 3:].any(), f"{where}: ignored pixels have a gradient"

        changed = scores.clone()
        changed[..., 3:] = torch.randn(2, count, 6, 3) * 5
        again, _ = _step(loss, changed, targets)
        assert torch.allclose(again, value), f"{where}: scores of ignored pixels change the loss"

        nothing, gradient = _step(loss, scores, torch.full_like(targets, _IGNORED))
        assert nothing == 0, f"{where}: {nothing.item()} where all pixels are ignored, not 0"
        assert not gradient.any(), f"{where}: a gradient where all pixels are ignored"

        half, _ = _step(loss, scores.bfloat16(), targets)
        exact, _ = _step(loss, scores.bfloat16().float(), targets)
        assert torch.equal(half, exact), f"{where}: bfloat16 scores are not computed in float32"

        bad = scores.clone()
        bad[0, :, 0, 0] = float("nan")
        found, _ = _step(loss, bad, targets)
        assert found.isnan(), f"{where}: NaN in the scores is hidden"


def _step(
    loss: SemanticLoss, scores: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    scores = scores.detach().clone().requires_grad_()
    value = Loss.of(loss(scores, targets)).value
    value.backward()
    assert scores.grad is not None
    return value.detach(), scores.grad
