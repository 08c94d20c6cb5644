"""Windows cover an image once, and blending them gives what the whole image gives."""

from __future__ import annotations

import itertools

from seg_plugins.modeling.backbones.unet import UNetBackbone
from seg_plugins.modeling.inference import SlidingWindow
from seg_plugins.modeling.meta_arch.semantic import SemanticSystem
from seg_plugins.modeling.sem_seg_heads.unet import SemSegUNetHead
from seg_plugins.prediction.windows import WindowGrid, blend_windows

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn


@st.composite
def grids(draw):
    alignment = draw(st.sampled_from([1, 4, 16]))
    margin = draw(st.integers(0, 5))
    overlap = draw(st.integers(2 * margin + 1, 30))
    return WindowGrid(draw(st.integers(overlap + alignment, 80)), overlap, margin, alignment)


@given(grids(), st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_windows_cover_a_side_with_their_weights(grid, length):
    spans = grid.spans(length)
    total = torch.zeros(length)
    for start, end in spans:
        assert start % grid.alignment == 0
        assert end - start < grid.size + grid.alignment
        total[start:end] += grid.weights((start, end), length)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert (total > 0).all()
    for (a, b), (c, d) in itertools.pairwise(spans):
        assert a < c < b
        assert b < d


@pytest.mark.parametrize(
    ("size", "overlap", "margin", "alignment"),
    [(64, 64, 0, 1), (64, 16, 8, 1), (64, 40, 4, 32), (64, 16, -1, 1)],
)
def test_windows_that_do_not_cover_are_refused(size, overlap, margin, alignment):
    with pytest.raises(ValueError, match="overlap"):
        WindowGrid(size, overlap, margin, alignment)


def assembled(predict, height, width, grid, folder):
    blocks = list(blend_windows(predict, height, width, grid, folder))
    result = torch.full((blocks[0][2].shape[0], height, width), float("nan"))
    for y, x, logits in blocks:
        area = result[:, y : y + logits.shape[1], x : x + logits.shape[2]]
        assert area.isnan().all()  # no pixel comes twice
        area.copy_(logits)
    assert not result.isnan().any()
    return result


@given(grids(), st.integers(1, 150), st.integers(1, 150))
@settings(max_examples=25, deadline=None)
def test_equal_windows_blend_to_themselves(tmp_path_factory, grid, height, width):
    whole = torch.randn(2, height, width)
    folder = tmp_path_factory.getbasetemp()

    def predict(y0, y1, x0, x1):
        return whole[:, y0:y1, x0:x1].clone()

    torch.testing.assert_close(
        assembled(predict, height, width, grid, folder), whole, rtol=1e-4, atol=1e-5
    )


def test_blending_is_the_sliding_window_of_inference(tmp_path):
    """The same windows and weights, without holding the image: an independent implementation."""

    class Positions:
        border, alignment = 0, 1

        def logits(self, images):
            # What a window says depends on where the pixel lies in it.
            rows = torch.arange(images.shape[2]).reshape(1, 1, -1, 1)
            columns = torch.arange(images.shape[3]).reshape(1, 1, 1, -1)
            return torch.cat([images * rows, images - columns], dim=1)

    image = torch.randn(1, 1, 100, 130)
    expected = SlidingWindow((32, 32), (24, 24))(Positions(), image)[0]
    found = assembled(
        lambda y0, y1, x0, x1: Positions().logits(image[:, :, y0:y1, x0:x1])[0],
        100, 130, WindowGrid(32, 8, 0), tmp_path,
    )  # fmt: skip
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def unet() -> SemanticSystem:
    """Two levels of 3x3 convolutions with zero padding: a receptive field of 9 pixels each side."""
    torch.manual_seed(0)
    backbone = UNetBackbone(in_channels=3, depth=2, width=4, padding="same")
    shapes = backbone.output_shape()
    head = SemSegUNetHead(shapes, num_classes=3, padding="same")
    return SemanticSystem(
        backbone=backbone, sem_seg_head=head, pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3
    ).eval()


@pytest.mark.parametrize("size", [(150, 217), (40, 90), (64, 65)])
def test_a_bounded_receptive_field_gives_the_whole_images_pixels(tmp_path, size):
    model = unet()
    image = torch.randn(3, *size)
    grid = WindowGrid(64, 32, 12, model.alignment)
    with torch.no_grad():
        whole = model([{"image": image}])[0]["sem_seg"]
        found = assembled(
            lambda y0, y1, x0, x1: model([{"image": image[:, y0:y1, x0:x1]}])[0]["sem_seg"],
            *size, grid, tmp_path,
        )  # fmt: skip
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.argmax(0), whole.argmax(0))


def test_a_margin_that_is_too_small_does_not(tmp_path):
    """The test above could fail."""
    model = unet()
    image = torch.randn(3, 150, 217)
    with torch.no_grad():
        whole = model([{"image": image}])[0]["sem_seg"]
        found = assembled(
            lambda y0, y1, x0, x1: model([{"image": image[:, y0:y1, x0:x1]}])[0]["sem_seg"],
            150, 217, WindowGrid(64, 32, 0, model.alignment), tmp_path,
        )  # fmt: skip
    assert not torch.equal(found.argmax(0), whole.argmax(0))


def test_the_network_sees_windows_only(tmp_path):
    sizes = []

    class Recorder(nn.Module):
        def forward(self, y0, y1, x0, x1):
            sizes.append((y1 - y0, x1 - x0))
            return torch.zeros(2, y1 - y0, x1 - x0)

    for _ in blend_windows(Recorder(), 500, 300, WindowGrid(64, 16, 4, 16), tmp_path):
        pass
    assert max(max(size) for size in sizes) < 64 + 16
    assert not list(tmp_path.iterdir())  # the temporary file is gone
