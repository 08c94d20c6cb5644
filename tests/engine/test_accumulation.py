"""Parts of a batch against the whole, where losses are means of different things."""

from __future__ import annotations

import contextlib
import os

from seg_plugins.engine.accumulation import Parts
from seg_plugins.engine.solver import StepOptions
from seg_plugins.engine.train_step import TrainStep
from seg_plugins.modeling.loss_terms import Loss, Losses, Sum
from seg_plugins.modeling.task_weighting import UncertaintyWeighting

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils.events import EventStorage
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
        semantic = Loss.of(Sum(found[:, 0].square().sum(), torch.tensor(sum(sizes))))
        losses = Losses(
            {
                "loss_sem_seg": semantic.times(0.5),
                "loss_offset": Sum(inside, positive.sum()),
                "loss_box": torch.stack([p.mean() for p in found[:, 2].split(sizes)]).mean(),
            }
        )
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
        with contextlib.nullcontext() if last or synchronised is None else synchronised():
            parts.add(model(part), size, lambda loss: loss, last=last)
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
        losses = {
            "loss_sem_seg": Sum(weight.detach() * 4 + 0 * weight, pixels[i]),
            "loss_box": weight * instance[i],
        }
        parts.add(Losses(losses), 1, lambda loss: loss, last=i == 1)
    assert float(weight.grad) == pytest.approx(2.0)
    assert float(parts.losses["loss_box"]) == pytest.approx(2.0)


def test_semantic_losses_count_by_pixels():
    """Means 1 of three pixels and 5 of one: (3 * 1 + 1 * 5) / 4 = 2, and not 3."""
    weight = nn.Parameter(torch.ones(()))
    parts = Parts([weight])
    for i, (total, count) in enumerate([(3.0, 3), (5.0, 1)]):
        losses = {
            "loss_sem_seg": Sum(weight * total, torch.tensor(count)),
            "loss_box": weight * (10.0, 30.0)[i],
        }
        parts.add(Losses(losses), 1, lambda loss: loss, last=i == 1)
    assert float(parts.losses["loss_sem_seg"]) == pytest.approx(2.0)
    assert float(weight.grad) == pytest.approx(2.0 + 20.0)


def test_terms_of_one_loss_count_each_by_its_own():
    """Cross-entropy 1 of three pixels and 5 of one, plus Dice 1 and 3: (3 + 5) / 4 + (1 + 3) / 2.

    Weighed by pixels alone Dice would be (3 * 1 + 1 * 3) / 4 = 1.5, by images alone the first 3.
    """
    weight = nn.Parameter(torch.ones(()))
    parts = Parts([weight])
    for i, (total, count, dice) in enumerate([(3.0, 3, 1.0), (5.0, 1, 3.0)]):
        entropy = Loss.of(Sum(weight * total, torch.tensor(count)))
        loss = Loss([*entropy, *Loss.of(weight * dice)])
        parts.add(Losses({"loss_sem_seg": loss}), 1, lambda loss: loss, last=i == 1)
    assert float(parts.losses["loss_sem_seg"]) == pytest.approx(4.0)
    assert float(weight.grad) == pytest.approx(4.0)


def test_plain_losses_of_detectron2_are_means_over_images():
    """Parts of one and two images with losses 4 and 1: (4 + 1 + 1) / 3 = 2."""
    weight = nn.Parameter(torch.ones(()))
    parts = Parts([weight])
    for i, (value, images_of_part) in enumerate([(4.0, 1), (1.0, 2)]):
        parts.add({"loss_box": weight * value}, images_of_part, lambda loss: loss, last=i == 1)
    assert float(weight.grad) == pytest.approx(2.0)
    assert float(parts.losses["loss_box"]) == pytest.approx(2.0)


def test_a_loss_that_a_part_lacks_is_zero_there_in_any_order():
    """Images count whether a part has the loss or not: 6 of one image of three is 2."""
    for first in (True, False):
        weight = nn.Parameter(torch.ones(()))
        parts = Parts([weight])
        for i in range(2):
            box = {"loss_box": weight * 6} if (i == 0) == first else {}
            pixels = Sum(weight * 0, torch.tensor(5))
            images_of_part = 1 if box else 2
            losses = Losses({"loss_sem_seg": pixels, **box})
            parts.add(losses, images_of_part, lambda loss: loss, last=i == 1)
        assert float(weight.grad) == pytest.approx(2.0)
        assert float(parts.losses["loss_box"]) == pytest.approx(2.0)


class TwoKinds(nn.Module):
    """A semantic loss of one image's 1 pixel and two images' 2 each, and one by image."""

    PIXELS, SEMANTIC, INSTANCE = (1, 2, 2), (6.0, 1.0, 1.0), (4.0, 1.0, 1.0)

    def __init__(self):
        super().__init__()
        self.semantic, self.instance = (nn.Parameter(torch.ones(())) for _ in range(2))

    def forward(self, batch):
        ids = [sample["image_id"] for sample in batch]
        total = sum(self.SEMANTIC[i] * self.PIXELS[i] for i in ids)
        pixels = torch.tensor(sum(self.PIXELS[i] for i in ids))
        box = sum(self.INSTANCE[i] for i in ids) / len(ids)
        losses = Losses({"loss_sem_seg": Sum(self.semantic * total, pixels)})
        return losses.joined({"loss_box": (self.instance * box)[None].double()})  # shape (1,)


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_a_training_step_weighs_each_loss_by_its_own(parts, dtype, tmp_path):
    """Both gradients are 2.0. In two parts, of 1 and 2 images and of 1 and 4 pixels, images alone
    would give 6 / 3 + 2 / 3 = 2.67 for the pixels, pixels alone 4 / 5 + 4 / 5 = 1.6 for the boxes.
    """
    model = TwoKinds()
    options = StepOptions(accumulate=parts, dtype=dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    step = TrainStep(model=model, loader=OneBatch(), optimizer=optimizer, device="cpu",
                     output_dir=str(tmp_path), options=options)  # fmt: skip
    step.start(0)
    with EventStorage():
        step.run_step()
    assert 1 - model.semantic.item() == pytest.approx(2.0)
    assert 1 - model.instance.item() == pytest.approx(2.0)


class OneBatch:
    def start_at(self, batch, drawn=None):
        pass

    def __iter__(self):
        yield [{"image_id": i} for i in range(3)]

    def dead_workers(self):
        return []


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
