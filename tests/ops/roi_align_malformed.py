"""Feed malformed boxes to the operator; run by test_extension.py under the sanitizers."""

import itertools
import sys

import torch

torch.ops.load_library(sys.argv[1])
roi_align, roi_align_backward = (
    torch.ops.seg_plugins.roi_align,
    torch.ops.seg_plugins.roi_align_backward,
)
NAN, INF = float("nan"), float("inf")
VALUES = [NAN, INF, -INF, 0.0, -0.0, 1e38, -1e38, 1e9, -1e9, 2.0**31, -5.0, 3.5, 1e-38, 7.0, 13.0]
SCALES = [0.5, 0.25]

torch.manual_seed(0)
torch.set_num_threads(1)  # the sanitizers' runtime does not know PyTorch's OpenMP
pick = torch.randint(len(VALUES), (400, 4))
boxes = torch.cat([torch.randint(2, (400, 1)).float(), torch.tensor(VALUES)[pick]], dim=1)
layouts = (torch.contiguous_format, torch.channels_last)
for channels, layout in itertools.product((1, 19, 300), layouts):
    maps = [
        torch.randn(2, channels, size, size).contiguous(memory_format=layout) for size in (9, 4)
    ]
    shapes = (2, [9, 4], [9, 4], not maps[0].is_contiguous())
    for sampling_ratio, aligned, maximum in itertools.product((0, 2), (True, False), (True, False)):
        settings = (sampling_ratio, aligned, maximum, 8.0, 2, 1)
        output, winners = roi_align(maps, boxes, [2, 3], SCALES, *settings)
        roi_align_backward(torch.ones_like(output), winners, boxes, *shapes, SCALES, *settings)
for index in (NAN, INF, -1.0, 2.0, 1e30):
    boxes[7, 0] = index
    try:
        roi_align(maps, boxes, [2, 3], SCALES, *settings)
    except IndexError:
        continue
    raise SystemExit(f"batch index {index} was accepted")
print("clean")
