"""The views of an image: those of Detectron2, one at a time."""

from __future__ import annotations

import weakref

from seg_plugins.modeling.test_time.views import Views

import numpy as np
import pytest
import torch
from detectron2.modeling.test_time_augmentation import DatasetMapperTTA


def noise(channels: int = 3, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(256, (channels, 60, 90), generator=generator, dtype=torch.uint8)
    return image.to(dtype)


@pytest.mark.parametrize("flip", [True, False])
def test_images_and_boxes_are_detectron2s(flip: bool) -> None:
    sample = {"image": noise(), "height": 120, "width": 200}
    expected = DatasetMapperTTA((30, 80, 0), 100, flip)(sample)
    views = Views(sample, (30, 80, 0), 100, flip=flip)
    assert len(views) == len(expected) == (6 if flip else 3)
    boxes = torch.tensor([[10.0, 20, 150, 60], [0, 0, 200, 120]])
    for view, theirs in zip(views, expected, strict=True):
        assert torch.equal(view.image, theirs["image"])
        mapped = view.boxes_from_output(boxes)
        of_theirs = theirs["transforms"].apply_box(boxes.numpy())
        assert torch.equal(mapped, torch.from_numpy(of_theirs).float())
        torch.testing.assert_close(view.boxes_to_output(mapped), boxes)


def test_boxes_by_hand() -> None:
    # 60 x 90 pixels to 20 x 30, for an output of 120 x 180; x is mirrored: 30 - x / 6.
    sample = {"image": noise(), "height": 120, "width": 180}
    plain, mirrored = Views(sample, (20,), 1000, flip=True)
    assert plain.size == mirrored.size == (20, 30)
    box = torch.tensor([[12.0, 6, 60, 30]])
    assert plain.boxes_from_output(box).tolist() == [[2, 1, 10, 5]]
    assert mirrored.boxes_from_output(box).tolist() == [[20, 1, 28, 5]]
    assert mirrored.boxes_to_output(torch.tensor([[20.0, 1, 28, 5]])).tolist() == box.tolist()
    assert mirrored.boxes_to_output(torch.zeros(0, 4)).shape == (0, 4)


@pytest.mark.parametrize(("channels", "dtype"), [(4, torch.uint8), (3, torch.float32)])
def test_images_that_pillow_cannot_hold_are_smoothed_too(channels: int, dtype) -> None:
    image = noise(channels, dtype)
    view = next(iter(Views({"image": image}, (20,), 1000, flip=False)))
    assert view.image.shape == (channels, 20, 30)
    for found, channel in zip(view.image, image, strict=True):
        alone = {"image": channel[None].to(torch.uint8)}
        expected = next(iter(Views(alone, (20,), 1000, flip=False))).image[0]
        assert np.abs(found.numpy() - expected.numpy().astype(float)).max() <= 1.0


def test_one_view_at_a_time() -> None:
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = 0
    for view in Views({"image": noise()}, (30, 40, 50), 1000, flip=True):
        alive.add(view.image)
        most = max(most, len(alive))
    assert most <= 2  # the image and, while it is made of it, the mirror image
