from seg_plugins.config import ConfigError
from seg_plugins.modeling.feature_geometry import (
    cell_offset,
    mirror_pad,
    origin_of,
    overlap,
    placed_shape,
    transposed_origin,
)

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec


def test_plain_shapes_tile_the_image() -> None:
    # Cells of 8 pixels: the first covers pixels 0..7, its centre is 3.5.
    assert origin_of(ShapeSpec(channels=1, stride=8)) == 3.5
    assert origin_of(placed_shape(channels=1, stride=8, origin=-5.0)) == -5.0


def test_transposed_convolution_spreads_the_first_cell_around_its_centre() -> None:
    # Kernel 64, stride 32: 64 pixels around 12.5 begin at -19, the crop of FCN-32s.
    assert transposed_origin(12.5, 32, 32, 64) == -19


def test_cell_offset_refuses_grids_that_do_not_coincide() -> None:
    assert cell_offset(4.0, -12.0, 8) == 2
    with pytest.raises(ConfigError, match=r"0\.5 cells apart"):
        cell_offset(4.0, 0.0, 8)


@pytest.mark.parametrize("offset", [2, -2])
def test_overlap_is_the_common_part(offset: int) -> None:
    long, short = torch.arange(49.0).view(1, 1, 7, 7), torch.arange(9.0).view(1, 1, 3, 3)
    pair = overlap(short, long, 2) if offset > 0 else overlap(long, short, -2)[::-1]
    assert pair[0].tolist() == short.tolist()
    assert pair[1][0, 0, 0].tolist() == [16.0, 17.0, 18.0]


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (9, 4)])
def test_mirror_pad_equals_numpy(size) -> None:
    image = torch.arange(float(np.prod(size))).view(1, 1, *size)
    expected = np.pad(image.numpy(), [(0, 0), (0, 0), (7, 11), (7, 11)], mode="reflect")
    np.testing.assert_array_equal(mirror_pad(image, 7, expected.shape[2:]).numpy(), expected)
