"""Centres, offsets and grouping, against Detectron2's Panoptic-DeepLab project."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from seg_plugins.modeling import instance_centers
from seg_plugins.modeling.instance_centers import (
    center_targets,
    find_centers,
    group_pixels,
    segments_from_centers,
)

import detectron2
import numpy as np
import pytest
import torch


def project(name):
    """A module of detectron2.projects.panoptic_deeplab, whose package needs panopticapi."""
    folder = Path(detectron2.__file__).parent / "projects" / "panoptic_deeplab"
    if not folder.is_dir():  # upstream keeps its projects outside the package
        pytest.skip("this Detectron2 comes without its Panoptic-DeepLab project")
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scene(seed, size=(70, 95), count=7):
    """Rectangles, later ones in front: (N, H, W) bool without overlaps."""
    rng = np.random.default_rng(seed)
    owner = np.zeros(size, int)
    for i in range(1, count + 1):
        y, x = rng.integers(0, size[0] - 5), rng.integers(0, size[1] - 5)
        owner[y : y + rng.integers(3, 30), x : x + rng.integers(3, 30)] = i
    return torch.from_numpy(np.stack([owner == i for i in range(1, count + 1)]))


@pytest.mark.parametrize("seed", range(4))
def test_targets_equal_the_projects(seed):
    masks = scene(seed)
    generator = project("target_generator").PanopticDeepLabTargetGenerator(
        ignore_label=255, thing_ids=[1], sigma=4, ignore_stuff_in_offset=True
    )
    panoptic = (masks * torch.arange(1, 8)[:, None, None]).sum(0).numpy()
    info = [{"id": i, "category_id": 1, "iscrowd": 0} for i in range(1, 8)]
    expected = generator(panoptic, info)
    found = center_targets(masks, sigma=4)
    torch.testing.assert_close(found.heatmap, expected["center"], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.offsets, expected["offset"], rtol=0, atol=1e-4)
    assert torch.equal(found.inside, expected["offset_weights"][0].bool())


def test_targets_of_a_hand_made_scene():
    masks = torch.zeros(3, 6, 8, dtype=torch.bool)
    masks[0, 1:4, 2:5] = True  # centre (2, 3)
    masks[1, 5, 6:8] = True  # centre (5, 6.5); the third one is empty
    found = center_targets(masks, sigma=1)
    assert found.heatmap[2, 3] == found.heatmap[5, 6] == 1  # a half rounds to even
    assert found.heatmap[2, 4].item() == pytest.approx(np.exp(-0.5))
    assert found.offsets[:, 1, 4].tolist() == [1, -1]
    assert found.offsets[:, 5, 7].tolist() == [0, -0.5]
    assert not found.offsets[:, 0].any()
    assert found.areas[1, 2] == 9
    assert found.areas[0, 0] == 0


def test_no_instance():
    found = center_targets(torch.zeros(0, 4, 5, dtype=torch.bool), sigma=2)
    assert not any(part.any() for part in found)


@pytest.mark.parametrize("seed", range(4))
def test_grouping_equals_the_projects(seed, monkeypatch):
    peer = project("post_processing")
    generator = torch.Generator().manual_seed(seed)
    masks = scene(seed)
    targets = center_targets(masks, sigma=4)
    noise = torch.rand(70, 95, generator=generator) * 0.09  # below the threshold
    heatmap = targets.heatmap + noise
    offsets = targets.offsets + torch.randn(2, 70, 95, generator=generator)
    owner = (masks * torch.arange(1, 8)[:, None, None]).sum(0)
    labels = torch.where(owner > 0, owner % 3, 3 + (torch.arange(95) > 40))
    labels[::9] = 2  # a wrong class here and there
    monkeypatch.setattr(instance_centers, "_PIXELS", 1000)
    found = segments_from_centers(
        labels, heatmap, offsets, 5, [0, 1, 2],
        stuff_area=300, threshold=0.1, nms_kernel=7, top_k=20,
    )  # fmt: skip
    expected, centers = peer.get_panoptic_segmentation(
        labels[None], heatmap[None].clone(), offsets, {0, 1, 2}, 1000, 300, -1, 0.1, 7, 20
    )
    assert torch.equal(find_centers(heatmap, 0.1, 7, 20), centers[0])
    expected = expected[0]
    # The same partition, with the same labels.
    pairs = torch.stack([found.ids.flatten(), expected.flatten()]).unique(dim=1).T.tolist()
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    for segment, value in pairs:
        assert value == -1 if segment == 0 else value // 1000 == found.labels[segment - 1]
    counts = torch.bincount(found.ids.flatten(), minlength=len(found.areas) + 1)[1:]
    assert torch.equal(counts, found.areas)
    assert found.num_things > 2


def test_grouping_by_hand():
    """Two centres in a row of pixels; each pixel points halfway to its own."""
    centers = torch.tensor([[0, 1], [0, 7]])
    offsets = torch.zeros(2, 1, 9)
    offsets[1] = torch.tensor([0.5, 0, -0.5, -1, -1.5, 1, 0.5, 0, -0.5])
    inside = torch.ones(1, 9, dtype=torch.bool)
    inside[0, 2] = False
    assert group_pixels(centers, offsets, inside).tolist() == [[1, 1, 0, 1, 1, 2, 2, 2, 2]]


def test_things_without_a_centre_are_void():
    labels = torch.tensor([[0, 0, 1, 1, 1]])
    found = segments_from_centers(
        labels, torch.zeros(1, 5), torch.zeros(2, 1, 5), 2, [0],
        stuff_area=0, threshold=0.1, nms_kernel=3, top_k=5,
    )  # fmt: skip
    assert found.ids.tolist() == [[0, 0, 1, 1, 1]]
    assert found.num_things == 0
    assert found.labels.tolist() == [1]
