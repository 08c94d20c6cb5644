#!/usr/bin/env python
"""Time and memory of pooling with indices against torch's, and of a SegNet training step.

python tools/benchmark_max_unpool.py [--repeats 15]

Pooling, unpooling and their gradients on the five maps of SegNet for one 360x480 image; then what
a training step of SegNet keeps for the backward pass, with one-byte codes and with the int64
indices of torch.max_pool2d and max_unpool2d in the same network.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import seg_plugins
from seg_plugins.ops import max_unpool

import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from timing import medians
from torch import Tensor

MAPS = [(64, 360, 480), (128, 180, 240), (256, 90, 120), (512, 45, 60), (512, 23, 30)]


def own(x: Tensor) -> Tensor:
    values, codes = max_unpool.max_pool_indexed(x)
    return max_unpool.max_unpool_indexed(values, codes, (x.shape[2], x.shape[3]))


def torchs(x: Tensor) -> Tensor:
    values, index = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
    return F.max_unpool2d(values, index, 2, output_size=x.shape[2:])


def step(function: Callable[[Tensor], Tensor], x: Tensor) -> None:
    function(x).sum().backward()


class Kept:
    """Bytes of the tensors that autograd keeps, each storage once, parameters left out."""

    def __init__(self, *excluded: Tensor) -> None:
        self.excluded = {t.untyped_storage().data_ptr() for t in excluded}
        self.sizes: dict[int, int] = {}

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.excluded:
            self.sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    def mebibytes(self, run: Callable[[], object]) -> float:
        """Run and count."""
        with torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor):
            result = run()  # alive until counted: a freed storage's address would be used again
        del result
        return sum(self.sizes.values()) / 2**20


class TorchIndices(torch.nn.Module):
    """Stands for IndexedMaxPool2d with torch's pooling."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values and int64 indices."""
        return F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)


def training_step_memory(with_torch: bool) -> float:
    opts = ["MODEL.DEVICE", "cpu", "MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS", "none"]
    model = build_model(seg_plugins.load_config("camvid/segnet_vgg16.yaml", opts)).train()
    if with_torch:
        import seg_plugins.modeling.sem_seg_heads.segnet as head

        for i, layer in enumerate(model.backbone.features):
            if isinstance(layer, max_unpool.IndexedMaxPool2d):
                model.backbone.features[i] = TorchIndices()
        head.max_unpool_indexed = lambda x, index, size: F.max_unpool2d(
            x, index, 2, output_size=size
        )
    batch = [{"image": torch.rand(3, 360, 480) * 255, "sem_seg": torch.zeros(360, 480).long()}]
    return Kept(*model.parameters(), *model.buffers()).mebibytes(lambda: model(batch))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    print(f"{'map':<16}{'own ms':>9}{'torch ms':>10}{'ratio':>7}")
    for shape in MAPS:
        x = torch.randn(1, *shape, requires_grad=True)
        forms = {"own": partial(step, own, x), "torch": partial(step, torchs, x)}
        mine, theirs = medians(forms, repeats).values()
        size = "x".join(map(str, shape))
        print(f"{size:<16}{mine:>9.2f}{theirs:>10.2f}{theirs / mine:>7.2f}")
    codes, int64 = training_step_memory(False), training_step_memory(True)
    print(f"training step, 1 x 360 x 480: {codes:.0f} MiB with codes, {int64:.0f} MiB with int64")


if __name__ == "__main__":
    main()
