"""InstanceFCN's windows: assembly, matching, targets, and the masks that they paint."""

from __future__ import annotations

from seg_plugins.modeling.instance_representations import (
    DenseMasks,
    WindowMasks,
)
from seg_plugins.modeling.instance_representations.windows import (
    BACKGROUND,
    LEFT_OUT,
    Windows,
    assemble,
    match_windows,
    parts_of,
    window_targets,
)

import pytest
import torch
import torch.nn.functional as F
from truth_of_rectangles import CPU, RULES, rectangles, truth_with

# --- windows


def test_assembly_by_hand():
    """k = 3, m = 6, map i of constant i: 2 x 2 blocks of 1 to 9."""
    maps = torch.arange(1.0, 10)[:, None].expand(9, 64)
    windows = Windows.of(6, [(8, 8)], [1], CPU)
    middle = torch.tensor([4 * 8 + 4])
    (found,) = assemble(maps, windows[middle], parts_of(6, 3))
    assert found.tolist() == [
        [1, 1, 2, 2, 3, 3],
        [1, 1, 2, 2, 3, 3],
        [4, 4, 5, 5, 6, 6],
        [4, 4, 5, 5, 6, 6],
        [7, 7, 8, 8, 9, 9],
        [7, 7, 8, 8, 9, 9],
    ]


def test_parts_that_do_not_divide_the_window():
    """The paper's 5 parts of 21 cells: runs of 5, 4, 4, 4, 4."""
    parts = parts_of(21, 5)
    assert parts[0].bincount().tolist() == [5, 4, 4, 4, 4]
    assert (parts[:, 0] // 5).bincount().tolist() == [5, 4, 4, 4, 4]
    assert torch.equal(parts, parts.T // 5 + parts.T % 5 * 5)


@pytest.mark.parametrize(("side", "parts"), [(5, 2), (6, 3), (7, 5), (1, 1)])
def test_assembly_equals_loops(side, parts):
    generator = torch.Generator().manual_seed(side)
    grids, strides = [(5, 7), (3, 4)], [4, 8]
    levels = [torch.randn(parts**2, *grid, generator=generator) for grid in grids]
    windows = Windows.of(side, grids, strides, CPU)
    maps = torch.cat([level.flatten(1) for level in levels], dim=1)
    found = assemble(maps, windows, parts_of(side, parts))
    place = 0
    for level, (rows, columns), stride in zip(levels, grids, strides, strict=True):
        for y in range(rows):
            for x in range(columns):
                for i in range(side):
                    for j in range(side):
                        part = parts * i // side * parts + parts * j // side
                        row = min(max(y - side // 2 + i, 0), rows - 1)
                        column = min(max(x - side // 2 + j, 0), columns - 1)
                        assert found[place, i, j] == level[part, row, column]
                middle = torch.tensor([x - side // 2 + side / 2, y - side // 2 + side / 2])
                assert torch.equal(windows.centers[place], middle * stride)
                place += 1


def test_matching_by_hand():
    """DeepMask's rule: a window of 224 pixels around an object of 128, 16 and 32 pixels away."""
    windows = Windows(
        28, *(torch.tensor([n]) for n in (-14 + 50, -14 + 50, 100, 100, 0, 8))
    )  # centre 400, 400; side 224

    def owner(shift, size):
        box = torch.tensor([[400 - size / 2 + shift, 400 - 4, 400 + size / 2 + shift, 404]])
        return match_windows(windows, box.float(), **RULES).item()

    assert owner(0, 128) == owner(16, 128) == owner(-16, 128) == 0
    assert owner(17, 128) == owner(32, 128) == LEFT_OUT
    assert owner(33, 128) == owner(-40, 128) == BACKGROUND
    assert owner(0, 128 * 2**0.24) == owner(0, 128 * 2**-0.24) == 0
    assert owner(0, 128 * 2**0.3) == owner(0, 128 * 2**-0.9) == LEFT_OUT
    assert owner(0, 128 * 2.1) == owner(0, 128 / 2.1) == BACKGROUND


def matched_by_loops(windows, boxes, rules):
    found = []
    for k in range(len(windows.row)):
        side = windows.side * windows.stride[k].item()
        best, close = None, False
        for j, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
            cx, cy = windows.centers[k].tolist()
            offset = max(abs((x0 + x1) / 2 - cx), abs((y0 + y1) / 2 - cy)) / side
            size = max(x1 - x0, y1 - y0) / side
            low, high = rules["positive_sizes"]
            if offset <= rules["positive_offset"] and low <= size <= high:
                best = min(best or (9, 0), (offset, j))
            low, high = rules["negative_sizes"]
            close = close or (offset <= rules["negative_offset"] and low <= size <= high)
        found.append(best[1] if best else LEFT_OUT if close else BACKGROUND)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_matching_equals_loops(seed):
    generator = torch.Generator().manual_seed(seed)
    windows = Windows.of(8, [(12, 10), (6, 5)], [4, 8], CPU)
    low = torch.randint(-4, 36, (9, 2), generator=generator).float()
    boxes = torch.cat([low, low + torch.randint(3, 40, (9, 2), generator=generator)], dim=1)
    rules = {**RULES, "positive_offset": 0.125, "negative_offset": 0.25, "positive_sizes": (0.3, 1)}
    found = match_windows(windows, boxes, **rules)
    assert found.tolist() == matched_by_loops(windows, boxes, rules)
    assert {BACKGROUND, LEFT_OUT} < set(found.tolist())


def test_targets_are_the_mask_under_the_window():
    masks = rectangles((30, 40), (8, 4, 24, 20), (20, 12, 40, 30))
    truth = truth_with(masks)
    windows = Windows.of(6, [(8, 10)], [4], CPU)
    owners = torch.arange(80) % 2
    target, seen = window_targets(windows, owners, truth, 4)
    cells = truth.masks_at(4, (32, 40))
    for k in range(80):
        for i in range(6):
            for j in range(6):
                row, column = k // 10 - 3 + i, k % 10 - 3 + j
                inside = 0 <= row < 8 and 0 <= column < 10
                assert seen[k, i, j] == inside
                assert target[k, i, j] == (cells[k % 2, row, column] if inside else 0)


# --- masks of windows


def blob(height, width, seed=0):
    noise = torch.randn(1, 1, 5, 6, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, (height, width), mode="bicubic")[0, 0].sigmoid()


@pytest.mark.parametrize("size", [(32, 40), (57, 33), (16, 20)])
def test_a_window_paints_what_a_dense_map_paints(size):
    """Inside the image; the map is 0 around the window."""
    dense = torch.zeros(1, 16, 20)
    dense[0, 3:12, 5:14] = window = blob(9, 9)
    form = WindowMasks(window[None], torch.tensor([[3, 5]]), torch.tensor([[2.0, 2.0]]))
    wanted = DenseMasks(dense, 2).paint(0, (32, 40), *size)
    found = form.paint(0, (32, 40), *size)
    assert torch.equal(found, wanted)
    assert found.any()
    if size == (32, 40):
        assert torch.equal(form.dense(*size)[0] > 0.5, found)
        rows, columns = (window > 0.5).nonzero().unbind(1)
        box = [columns.min() + 5, rows.min() + 3, columns.max() + 6, rows.max() + 4]
        assert form.boxes[0].tolist() == [2 * side for side in box]


def test_windows_over_the_border_and_without_a_cell():
    windows = torch.zeros(4, 5, 5)
    windows[0], windows[1, 1:, 1:], windows[2] = 1, 1, 1
    corners = torch.tensor([[-3, -2], [2, 4], [9, 9], [0, 0]])
    form = WindowMasks(windows, corners, torch.full((4, 2), 4.0))
    masks = [form.paint(i, (20, 28), 20, 28) for i in range(4)]
    assert torch.equal(masks[0].nonzero().amax(0), torch.tensor([7, 11]))
    assert masks[0][:8, :12].sum() == 8 * 12 - 1  # interpolation rounds its corner
    assert masks[1].nonzero().amin(0).tolist() == [12, 20]  # to the lower right of the image
    assert masks[1][12:, 20:].sum() == 8 * 8 - 1
    assert not masks[2].any()  # outside
    assert not masks[3].any()
    dense = form.dense(20, 28) > 0.5
    assert all(torch.equal(a, b) for a, b in zip(masks, dense, strict=True))
    assert form.boxes[3].tolist() == [0, 0, 0, 0]
    assert torch.equal(form[[1, 0]].boxes, form.boxes[[1, 0]])
    assert len(form[:0]) == 0
