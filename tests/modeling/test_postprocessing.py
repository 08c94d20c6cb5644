"""Resizing to the image's size: Detectron2's values, and no work where there is none to do."""

from seg_plugins.modeling.postprocessing import sem_seg_postprocess

import pytest
import torch
from detectron2.modeling import postprocessing as detectron2


@pytest.mark.parametrize("wanted", [(20, 30), (21, 30), (20, 31), (40, 15)])
@pytest.mark.parametrize("padding", [0, 12])
def test_values_equal_detectron2s(wanted: tuple[int, int], padding: int) -> None:
    torch.manual_seed(0)
    maps = torch.randn(5, 20 + padding, 30 + padding)
    expected = detectron2.sem_seg_postprocess(maps, (20, 30), *wanted)
    assert torch.equal(sem_seg_postprocess(maps, (20, 30), *wanted), expected)


def test_an_infinite_score_leaves_its_neighbours_alone() -> None:
    # Detectron2's interpolation multiplies it by a weight of 0: NaN beside it.
    maps = torch.zeros(1, 3, 3)
    maps[0, 1, 1] = float("-inf")
    assert sem_seg_postprocess(maps, (3, 3), 3, 3).isfinite().sum() == 8


def test_of_a_padded_map_only_the_image_is_kept_in_memory() -> None:
    found = sem_seg_postprocess(torch.zeros(2, 64, 64), (3, 5), 3, 5)
    assert found.shape == (2, 3, 5)
    assert found.untyped_storage().nbytes() == 2 * 3 * 5 * 4
