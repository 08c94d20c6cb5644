"""RoIAlign against numbers worked out by hand."""

from __future__ import annotations

from seg_plugins.ops import roi_align

import cv2
import pytest
import torch

pytestmark = pytest.mark.usefixtures("device")
BACKENDS_OF_THE_MEAN = [None, "reference", "torchvision"]


@pytest.mark.parametrize("backend", BACKENDS_OF_THE_MEAN)
@pytest.mark.parametrize(("aligned", "start"), [(True, 4.5), (False, 7.5)])
def test_five_by_five_ramp(backend, aligned, start):
    """Detectron2's documented example: pixel (y, x) holds 5 y + x, box (1, 1, 3, 3), 4x4 bins.

    Bins are half a pixel. The aligned box begins at 0.5, so that its first bin is centred at
    0.75: 5 * 0.75 + 0.75 = 4.5; without the half-pixel shift at 1.25: 7.5.
    """
    ramp = torch.arange(25.0).reshape(1, 1, 5, 5)
    box = torch.tensor([[0.0, 1, 1, 3, 3]])
    output = roi_align(ramp, box, 4, 1.0, 0, aligned, backend=backend)[0, 0]
    steps = torch.arange(4.0)
    torch.testing.assert_close(output, start + 2.5 * steps[:, None] + 0.5 * steps[None])


@pytest.mark.parametrize("backend", BACKENDS_OF_THE_MEAN)
def test_half_the_image_and_half_the_box_give_the_same(backend):
    """Detectron2's example of the half-pixel shift: OpenCV's resizing has the same convention."""
    image = 100 * torch.rand(30, 30)
    half = torch.from_numpy(cv2.resize(image.cpu().numpy(), (15, 15))).to(image)
    box = torch.tensor([[0.0, 10, 10, 20, 20]])
    box_of_half = torch.tensor([[0.0, 5, 5, 10, 10]])
    output = roi_align(image[None, None], box, 5, 1.0, 0, True, backend=backend)
    of_half = roi_align(half[None, None], box_of_half, 5, 1.0, 0, True, backend=backend)
    torch.testing.assert_close(of_half, output, rtol=0, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS_OF_THE_MEAN)
def test_empty_batch_and_empty_box(backend):
    nothing = roi_align(torch.zeros(0, 3, 10, 10), torch.zeros(0, 5), 7, 1.0, backend=backend)
    assert nothing.shape == (0, 3, 7, 7)
    feature = torch.rand(1, 2, 5, 5, requires_grad=True)
    output = roi_align(feature, torch.tensor([[0.0, 3, 4, 3, 4]]), 7, 1.0, backend=backend)
    assert output.shape == (1, 2, 7, 7)
    assert not output.any()
    output.sum().backward()
    assert not feature.grad.any()


@pytest.mark.parametrize("backend", BACKENDS_OF_THE_MEAN)
def test_one_pixel_box_reads_its_pixel(backend):
    feature = torch.randn(1, 3, 6, 7)
    box = torch.tensor([[0.0, 4, 2, 5, 3]])
    output = roi_align(feature, box, 1, 1.0, 1, True, backend=backend)
    torch.testing.assert_close(output[0, :, 0, 0], feature[0, :, 2, 4])


@pytest.mark.parametrize("backend", BACKENDS_OF_THE_MEAN)
def test_points_off_the_map_are_zero_and_near_ones_clamped(backend):
    feature = torch.ones(1, 1, 4, 4)
    # One point per bin and axis, at x = -1.5, -0.5, 0.5, 1.5 (aligned: box minus a half).
    box = torch.tensor([[0.0, -1.5, 1, 2.5, 2]])
    output = roi_align(feature, box, (1, 4), 1.0, 1, True, backend=backend)
    torch.testing.assert_close(output.flatten(), torch.tensor([0.0, 1, 1, 1]))


@pytest.mark.parametrize("backend", [None, "reference"])
def test_maximum_takes_the_largest_point_and_its_gradient(backend):
    feature = torch.zeros(1, 1, 4, 4)
    feature[0, 0, 1, 2] = 8.0
    feature.requires_grad_()
    # Two points per axis in the one bin, at pixels 1 and 2 exactly.
    box = torch.tensor([[0.0, 1, 1, 3, 3]])
    output = roi_align(feature, box, 1, 1.0, 2, True, "max", backend=backend)
    assert output.item() == 8.0
    output.backward()
    expected = torch.zeros(4, 4)
    expected[1, 2] = 1.0
    torch.testing.assert_close(feature.grad[0, 0], expected)


@pytest.mark.parametrize("backend", [None, "reference"])
def test_maximum_of_a_bin_of_billions_of_points_has_a_gradient(backend):
    """65,000 points along both axes: the number of the winner needs all of 32 bits."""
    feature = torch.ones(1, 1, 16, 16, requires_grad=True)
    box = torch.tensor([[0.0, -40_000, -40_000, 25_000, 25_000]])
    output = roi_align(feature, box, 1, 1.0, 0, True, "max", backend=backend)
    assert output.item() == 1.0
    assert torch.autograd.grad(output, feature)[0].sum().item() == pytest.approx(1.0)


@pytest.mark.parametrize("backend", [None, "reference"])
def test_maximum_of_negative_values_at_the_border_is_the_zero_off_the_map(backend):
    feature = -torch.ones(1, 1, 4, 4, requires_grad=True)
    feature.retain_grad()
    box = torch.tensor([[0.0, -3, 1, 3, 2]])
    output = roi_align(feature, box, 1, 1.0, 6, True, "max", backend=backend)
    assert output.item() == 0.0
    output.backward()
    assert not feature.grad.any()


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 3])
def test_bins_of_a_ramp_are_its_value_at_their_centre(sampling_ratio, channels_last):
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    ramp = torch.stack([2 * y - 3 * x, y, x])[None].double().contiguous(memory_format=layout)
    corner = torch.rand(20, 2) * 20 + 1
    size = torch.rand(20, 2) * 15 + 0.5
    boxes = torch.cat([torch.zeros(20, 1), corner, corner + size], 1).double()
    output = roi_align(ramp, boxes, (4, 3), 1.0, sampling_ratio)
    bins_y = (torch.arange(4.0, dtype=torch.float64) + 0.5) / 4
    bins_x = (torch.arange(3.0, dtype=torch.float64) + 0.5) / 3
    at_y = boxes[:, 2:3] + bins_y * (boxes[:, 4:5] - boxes[:, 2:3]) - 0.5
    at_x = boxes[:, 1:2] + bins_x * (boxes[:, 3:4] - boxes[:, 1:2]) - 0.5
    expected = torch.stack(
        [
            2 * at_y[:, :, None] - 3 * at_x[:, None],
            at_y[:, :, None].expand(-1, 4, 3),
            at_x[:, None].expand(-1, 4, 3),
        ],
        dim=1,
    )
    torch.testing.assert_close(output, expected)
