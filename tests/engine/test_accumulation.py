"""Parts of a batch against the whole, where losses are means of different things."""

from __future__ import annotations

import os

from seg_plugins.engine.accumulation import Parts
from seg_plugins.modeling.losses import global_mean, recorded_means
from seg_plugins.modeling.task_weighting import UncertaintyWeighting

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint


class Mixed(nn.Module):
    """Three means over one layer: of all pixels, of the positive ones, and of the images."""

    def __init__(self, again=False, weighting=None):
        super().__init__()
        torch.manual_seed(5)
        self.layer = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3))
        self.unused = nn.Linear(1, 1)
        self.again, self.weighting = again, weighting

    def forward(self, images):
        """Images: (pixels, 2) each, of different numbers of pixels."""
        pixels = torch.cat(images)
        found = (
            checkpoint(self.layer, pixels, use_reentrant=False)
            if self.again
            else self.layer(pixels)
        )
        positive = pixels[:, 0] > 0
        inside = (found[:, 1] * positive).sum()
        sizes = [len(image) for image in images]
        losses = {
            "loss_sem_seg": 0.5 * global_mean(found[:, 0].square().sum(), torch.tensor(sum(sizes))),
            "loss_offset": global_mean(inside, positive.sum()),
            "loss_box": torch.stack([p.mean() for p in found[:, 2].split(sizes)]).mean(),
        }
        return losses if self.weighting is None else self.weighting(losses)


def images(count):
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(2 + 5 * i, 2, generator=generator) for i in range(count)]


def accumulated(model, batch, sizes):
    parts = Parts([p for p in model.parameters() if p.requires_grad])
    for i, size in enumerate(sizes):
        part, batch = batch[:size], batch[size:]
        last = i == len(sizes) - 1
        synchronised = getattr(model, "no_sync", None)
        if last or synchronised is None:
            with recorded_means() as means:
                parts.add(model(part), means, size, lambda loss: loss, last=last)
        else:
            with synchronised(), recorded_means() as means:
                parts.add(model(part), means, size, lambda loss: loss, last=last)
    return parts.losses, [p.grad for p in model.parameters()]


def whole(model, batch):
    losses = model(batch)
    torch.stack(list(losses.values())).sum().backward()
    return losses, [p.grad for p in model.parameters()]


def assert_same(found, expected):
    for name, loss in expected[0].items():
        torch.testing.assert_close(found[0][name], loss.detach(), rtol=1e-5, atol=1e-6)
    for gradient, wanted in zip(found[1], expected[1], strict=True):
        assert (gradient is None) == (wanted is None)
        if wanted is not None:
            torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-6)


def test_instance_losses_count_by_images_whatever_the_pixels():
    """Losses w * mean: 3 and 1 pixels, one image each; the gradient is the mean of 3 and 1."""
    weight = nn.Parameter(torch.ones(()))
    pixels, instance = torch.tensor([3, 1]), torch.tensor([3.0, 1.0])
    parts = Parts([weight])
    for i in range(2):
        with recorded_means() as means:
            losses = {
                "loss_sem_seg": global_mean(weight.detach() * 4, pixels[i]) + 0 * weight,
                "loss_box": weight * instance[i],
            }
            parts.add(losses, means, 1, lambda loss: loss, last=i == 1)
    assert float(weight.grad) == pytest.approx(2.0)
    assert float(parts.losses["loss_box"]) == pytest.approx(2.0)


def test_semantic_losses_count_by_pixels():
    """Means 1 of three pixels and 5 of one: (3 * 1 + 1 * 5) / 4 = 2, and not 3."""
    weight = nn.Parameter(torch.ones(()))
    parts = Parts([weight])
    for i, (total, count) in enumerate([(3.0, 3), (5.0, 1)]):
        with recorded_means() as means:
            losses = {
                "loss_sem_seg": global_mean(weight * total, torch.tensor(count)),
                "loss_box": weight * (10.0, 30.0)[i],
            }
            parts.add(losses, means, 1, lambda loss: loss, last=i == 1)
    assert float(parts.losses["loss_sem_seg"]) == pytest.approx(2.0)
    assert float(weight.grad) == pytest.approx(2.0 + 20.0)


@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed_again"])
@pytest.mark.parametrize("sizes", [(2, 2), (1, 3), (1, 1, 2)])
def test_parts_of_a_model_with_several_divisors_make_the_whole(sizes, again):
    assert_same(accumulated(Mixed(again), images(4), sizes), whole(Mixed(), images(4)))


def test_learned_weights_of_tasks_see_the_whole():
    def model():
        tasks = {"loss_sem_seg": "semantic", "loss_offset": "offsets"}
        return Mixed(weighting=UncertaintyWeighting(tasks, default="boxes"))

    assert_same(accumulated(model(), images(4), (1, 3)), whole(model(), images(4)))


def _process(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = Mixed()
    model.unused = nn.Identity()
    wrapped = DistributedDataParallel(model)
    _, gradients = accumulated(wrapped, images(8)[rank::2], (1, 1, 2))
    if rank == 0:
        torch.save(gradients, os.path.join(folder, "gradients"))
    dist.destroy_process_group()


@pytest.mark.slow
def test_parts_in_two_processes_make_the_whole(tmp_path):
    mp.spawn(_process, (str(tmp_path),), nprocs=2)
    model = Mixed()
    model.unused = nn.Identity()
    _, expected = whole(model, images(8))
    found = torch.load(tmp_path / "gradients")
    for gradient, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-6)
