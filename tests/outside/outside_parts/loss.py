"""A loss with an option: the Tversky index (Salehi et al. 2017)."""

from seg_plugins.modeling import LOSS_REGISTRY


@LOSS_REGISTRY.register()
def tversky(logits, targets, valid, weights, *, alpha=0.5):
    """1 - TP / (TP + alpha FP + (1 - alpha) FN), mean of the classes that occur.

    A scalar is a mean over the images of the batch; ``Sum(total, count)`` would be one over pixels.
    """
    if logits.shape[1] == 1:
        probability = logits.sigmoid()
        truth = (targets == 1)[:, None]
    else:
        probability = logits.softmax(dim=1)
        truth = targets[:, None] == targets.new_tensor(range(logits.shape[1]))[:, None, None]
    probability = probability * valid[:, None]
    truth = (truth & valid[:, None]).to(probability.dtype)
    found, there = probability.sum(dim=(0, 2, 3)), truth.sum(dim=(0, 2, 3))
    both = (probability * truth).sum(dim=(0, 2, 3))
    index = both / (both + alpha * (found - both) + (1 - alpha) * (there - both)).clamp(min=1e-6)
    present = there > 0
    return ((1 - index) * present).sum() / present.sum().clamp(min=1)
