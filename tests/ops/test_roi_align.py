"""The operator against the reference and torchvision; its gradients, threads and errors."""

from __future__ import annotations

from seg_plugins.ops import backend_report, roi_align
from seg_plugins.ops._extension import load_extension

import pytest
import torch
import torchvision

needs_extension = pytest.mark.skipif(
    not load_extension().loaded, reason=f"not built: {load_extension().reason}"
)
pytestmark = pytest.mark.usefixtures("device")
ON_THE_CPU = pytest.mark.parametrize("device", ["cpu"], indirect=True)
NAN, INF = float("nan"), float("inf")
BACKENDS_OF_THE_MEAN = [None, "reference", "torchvision"]
SCALES = [1 / 2, 1 / 4, 1 / 8]
PYRAMID = {"canonical_box_size": 40, "canonical_level": 2}
ODD_BOXES = [
    [0, -30.0, -30.0, 10.0, 12.0],  # partly off the map
    [1, 300.0, 300.0, 400.0, 500.0],  # wholly off the map
    [0, 50.0, 50.0, 40.0, 40.0],  # reversed
    [0, 50.0, 10.0, 40.0, 40.0],  # reversed along x
    [1, 5.0, 5.0, 5.0, 5.0],  # empty
    [1, NAN, 0.0, 3.0, 3.0],
    [0, 0.0, 0.0, INF, 5.0],
    [0, -INF, 0.0, INF, 5.0],
    [0, 1e30, 1e30, 2e30, 2e30],
    [1, -4000.0, -3000.0, 5000.0, 3000.0],  # huge
    [0, -1e9, 0.0, 1e9, 9.0],
]


def maps(dtype=torch.float32, channels=19, channels_last=True, levels=3, batch=2):
    """A pyramid for an image of 96 x 128 pixels."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return [
        torch.randn(batch, channels, 48 >> i, 64 >> i)
        .to(dtype)
        .contiguous(memory_format=layout)
        .requires_grad_()
        for i in range(levels)
    ]


def random_boxes(count, batch=2):
    corner = torch.rand(count, 2) * torch.tensor([110.0, 80.0])
    size = torch.exp(torch.rand(count, 2) * 4.5)
    image = torch.randint(batch, (count, 1)).float()
    return torch.cat([image, corner, corner + size], dim=1)


def forward_and_gradients(features, boxes, *arguments, backend, grad=None, **options):
    output = roi_align(features, boxes, *arguments, backend=backend, **options)
    if grad is None:
        generator = torch.Generator().manual_seed(3)
        grad = torch.randn(output.shape, generator=generator, device="cpu")
    gradients = torch.autograd.grad(output, features, grad.to(output), allow_unused=True)
    filled = [
        torch.zeros_like(f) if g is None else g for f, g in zip(features, gradients, strict=True)
    ]
    return output.detach(), filled


# ----------------------------------------------------------------------------- against the oracle


@pytest.mark.parametrize("backend", [pytest.param("own", marks=needs_extension), "torchvision"])
@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_mean_agrees_with_the_reference(device, backend, levels, aligned, sampling_ratio):
    backend = device if backend == "own" else backend
    features = maps(torch.float64, channels=3, levels=levels)
    boxes = torch.cat([random_boxes(12), torch.tensor(ODD_BOXES)]).double()
    arguments = ((3, 2), SCALES[:levels], sampling_ratio, aligned, "avg")
    ours = forward_and_gradients(features, boxes, *arguments, backend=backend, **PYRAMID)
    oracle = forward_and_gradients(features, boxes, *arguments, backend="reference", **PYRAMID)
    torch.testing.assert_close(ours, oracle)


@needs_extension
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_maximum_agrees_with_the_reference(device, channels_last, sampling_ratio):
    features = maps(torch.float64, channels=3, channels_last=channels_last)
    boxes = torch.cat([random_boxes(12), torch.tensor(ODD_BOXES)]).double()
    arguments = ((3, 2), SCALES, sampling_ratio, True, "max")
    ours = forward_and_gradients(features, boxes, *arguments, backend=device, **PYRAMID)
    oracle = forward_and_gradients(features, boxes, *arguments, backend="reference", **PYRAMID)
    torch.testing.assert_close(ours, oracle)


@needs_extension
@pytest.mark.parametrize("channels", [1, 16, 37, 300])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 2e-5), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)],
)
def test_every_dtype_layout_and_number_of_channels(
    device, dtype, tolerance, channels, channels_last
):
    features = maps(dtype, channels, channels_last)
    boxes = random_boxes(9)
    arguments = ((3, 4), SCALES, 2)
    output, gradients = forward_and_gradients(
        features, boxes, *arguments, backend=device, **PYRAMID
    )
    wide = [f.detach().double().requires_grad_() for f in features]
    expected, wide_gradients = forward_and_gradients(
        wide, boxes.double(), *arguments, backend="torchvision", **PYRAMID
    )
    assert output.dtype == dtype
    torch.testing.assert_close(output.double(), expected, rtol=tolerance, atol=tolerance)
    for ours, theirs, feature in zip(gradients, wide_gradients, features, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=10 * tolerance, atol=10 * tolerance)
        assert ours.dtype == dtype
        assert ours.stride() == feature.stride()


@needs_extension
def test_output_keeps_the_layout_of_the_features():
    boxes = random_boxes(4)
    last = roi_align(maps(), boxes, 3, SCALES)
    first = roi_align(maps(channels_last=False), boxes, 3, SCALES)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert first.is_contiguous()


@needs_extension
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_as_near_to_float64_as_torchvision_and_as_near_to_torchvision(
    sampling_ratio, channels_last
):
    feature = maps(levels=1, channels_last=channels_last, batch=1)[0].detach()
    boxes = random_boxes(200, batch=1)
    ours = roi_align(feature, boxes, 7, SCALES[:1], sampling_ratio)
    theirs = torchvision.ops.roi_align(feature, boxes, 7, SCALES[0], sampling_ratio, True)
    exact = torchvision.ops.roi_align(
        feature.double(), boxes.double(), 7, SCALES[0], sampling_ratio, True
    )
    assert (ours - theirs).abs().max() <= 1e-5
    assert (ours - exact).abs().max() <= (theirs - exact).abs().max() + 1e-6


# ------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("reduce", ["avg", "max"])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_gradcheck(reduce, channels_last, sampling_ratio):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    features = [
        torch.randn(2, 2, size, size, dtype=torch.float64)
        .contiguous(memory_format=layout)
        .requires_grad_()
        for size in (8, 4)
    ]
    boxes = torch.tensor([[0, 1.3, 2.1, 9.7, 8.2], [1, -2, 3, 15, 15], [1, 4.5, 4.5, 6, 5]])

    def pool(*levels):
        return roi_align(
            levels, boxes.double(), (2, 3), [0.5, 0.25], sampling_ratio, True, reduce,
            canonical_box_size=8, canonical_level=2,
        )  # fmt: skip

    # Atomic additions on a GPU come in any order.
    assert torch.autograd.gradcheck(pool, features, nondet_tol=1e-12)


@needs_extension
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("size", [40_000.0, 65_000.0, 65_535.0])
def test_gradient_of_the_maximum_of_a_box_of_billions_of_points(device, size, channels_last):
    """Its points are numbered beyond 31 bits; one bin of this size is still pooled."""
    features = maps(torch.float64, 3, channels_last, levels=1, batch=1)
    boxes = torch.tensor([[0, 60 - size, 50 - size, 60.0, 50.0], [0, 8.0, 8, 8 + size, 8 + size]])
    arguments = ((1, 1), [1.0], 0, True, "max")
    ours = forward_and_gradients(features, boxes.double(), *arguments, backend=device)
    oracle = forward_and_gradients(features, boxes.double(), *arguments, backend="reference")
    torch.testing.assert_close(ours, oracle)
    assert ours[0].min() > 0
    assert ours[1][0].any()


@pytest.mark.parametrize("reduce", ["avg", "max"])
def test_a_second_derivative_is_refused(reduce):
    features = torch.randn(1, 2, 8, 8, requires_grad=True)
    if reduce == "max" and not load_extension().loaded:
        pytest.skip("the reference can be differentiated twice")
    pooled = roi_align(features, torch.tensor([[0, 1.0, 1, 6, 7]]), 2, 1.0, reduce=reduce)
    (gradient,) = torch.autograd.grad((pooled**2).sum(), features, create_graph=True)
    with pytest.raises(RuntimeError, match="roi_align"):
        gradient.sum().backward()


@needs_extension
@ON_THE_CPU
@pytest.mark.parametrize("reduce", ["avg", "max"])
def test_one_and_two_threads_give_the_same_bits(device, reduce):
    features, boxes = maps(channels=48), random_boxes(60)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(
                forward_and_gradients(
                    features, boxes, 7, SCALES, 0, True, reduce, backend=device, **PYRAMID
                )
            )
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


@needs_extension
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("reduce", ["avg", "max"])
def test_deterministic_algorithms_give_the_same_bits_again(device, reduce, channels_last):
    """Where hundreds of boxes add to one pixel, whose sum depends on their order."""
    features = maps(channels=24, channels_last=channels_last)
    boxes = random_boxes(300)
    arguments = (7, SCALES, 0, True, reduce)
    expected = forward_and_gradients(features, boxes, *arguments, backend=device, **PYRAMID)
    torch.use_deterministic_algorithms(True)
    try:
        first, *others = (
            forward_and_gradients(features, boxes, *arguments, backend=device, **PYRAMID)
            for _ in range(4)
        )
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(first, expected, rtol=1e-4, atol=1e-4)
    for other in others:
        torch.testing.assert_close(other, first, rtol=0, atol=0)


@needs_extension
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
@pytest.mark.parametrize("channels", [64, 80, 81])
def test_large_results_have_the_bits_of_small_ones(device, dtype, channels):
    """Results of many megabytes are written past the caches, where the channels' number allows."""
    features = [part.detach() for part in maps(dtype, channels)]
    boxes = random_boxes(2400)
    arguments = ((7, 7), SCALES)
    whole = roi_align(features, boxes, *arguments, backend=device, **PYRAMID)
    assert whole.nbytes > 2**23
    for first in range(0, 2400, 200):
        part = boxes[first : first + 200]
        few = roi_align(features, part, *arguments, backend=device, **PYRAMID)
        torch.testing.assert_close(whole[first : first + 200], few, rtol=0, atol=0)


@needs_extension
def test_no_boxes_give_zero_gradients():
    features = maps()
    output = roi_align(features, torch.zeros(0, 5), 7, SCALES)
    assert output.shape == (0, 19, 7, 7)
    output.sum().backward()
    assert all(f.grad is not None and not f.grad.any() for f in features)


# ------------------------------------------------------------------------------------ odd inputs


@pytest.mark.parametrize("backend", BACKENDS_OF_THE_MEAN)
@pytest.mark.parametrize("reduce", ["avg", "max"])
def test_boxes_that_are_no_boxes_pool_to_zero(backend, reduce):
    if backend == "torchvision" and reduce == "max":
        pytest.skip("torchvision has no maximum")
    features = [torch.ones(2, 2, 48 >> i, 64 >> i) for i in range(3)]
    boxes = torch.tensor([ODD_BOXES[i] for i in (1, 3, 4, 5, 6, 7, 8)])
    output = roi_align(features, boxes, 3, SCALES, 0, True, reduce, backend=backend)
    assert not output.any()


@pytest.mark.parametrize("backend", BACKENDS_OF_THE_MEAN)
@pytest.mark.parametrize("reduce", ["avg", "max"])
@pytest.mark.parametrize("sampling_ratio", [2, 9, 30])
def test_a_box_without_extent_pools_the_value_at_its_place(backend, reduce, sampling_ratio):
    if backend == "torchvision" and reduce == "max":
        pytest.skip("torchvision has no maximum")
    feature = torch.arange(64.0).view(1, 1, 8, 8)
    # Pixel centres are at halves: (4, 3) is between columns 3 and 4 and rows 2 and 3.
    boxes = torch.tensor([[0, 4.0, 3, 4, 3], [0, 4.0, 3, 4, 5], [0, 4.5, 3, 4.5, 3]])
    arguments = (1, 1.0, sampling_ratio, True, reduce)
    pooled = roi_align(feature, boxes, *arguments, backend=backend).flatten()
    assert pooled[[0, 2]].tolist() == pytest.approx([23.5, 24], abs=1e-3)
    # Rows 2.5 to 4.5, 8 a row.
    middle = 31.5 if reduce == "avg" else 39.5 - 8 / sampling_ratio
    assert pooled[1].item() == pytest.approx(middle, abs=1e-3)


@ON_THE_CPU  # a GPU's assertion ends the process's use of it
@pytest.mark.parametrize("backend", BACKENDS_OF_THE_MEAN)
@pytest.mark.parametrize("index", [2.0, -1.0, NAN, 1e20])
def test_batch_index_outside_the_batch_raises(backend, index):
    boxes = torch.tensor([[0, 1, 1, 5, 5], [index, 1, 1, 5, 5]])
    with pytest.raises(IndexError, match="batch"):
        roi_align(torch.ones(2, 1, 8, 8), boxes, 2, 1.0, backend=backend)


@ON_THE_CPU
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"boxes": torch.zeros(2, 4)}, ValueError, r"\(K, 5\)"),
        ({"output_size": 0}, ValueError, "positive"),
        ({"output_size": (1, 2, 3)}, ValueError, r"\(h, w\)"),
        ({"spatial_scales": [0.5]}, ValueError, "one scale per map"),
        ({"spatial_scales": [0.5, 0.5]}, ValueError, "halve"),
        ({"spatial_scales": [-1.0, -0.5]}, ValueError, "positive"),
        ({"reduce": "sum"}, ValueError, "'avg' or 'max'"),
        ({"sampling_ratio": 2**32 + 1}, ValueError, "at most 65535"),
        ({"backend": "opencl"}, ValueError, "torchvision"),
        ({"backend": "cuda"}, RuntimeError, "cuda"),
    ],
)
def test_wrong_arguments_say_what_is_right(change, error, message):
    arguments = {
        "features": [torch.ones(1, 1, 8, 8), torch.ones(1, 1, 4, 4)],
        "boxes": torch.zeros(2, 5),
        "output_size": 2,
        "spatial_scales": [0.5, 0.25],
    }
    with pytest.raises(error, match=message):
        roi_align(**{**arguments, **change})


@needs_extension
@pytest.mark.parametrize("size", [(2**26 + 1, 1), (1, 2**32 + 1)])
def test_sizes_that_32_bits_do_not_count_are_refused(size):
    with pytest.raises(ValueError, match=r"output_size has .* more than 67108864 cannot be"):
        roi_align(torch.zeros(1, 1, 1, 1), torch.zeros(0, 5), size, 1.0)


@needs_extension
def test_levels_must_agree():
    with pytest.raises(TypeError, match="one dtype"):
        roi_align(
            [torch.ones(1, 1, 8, 8), torch.ones(1, 1, 4, 4).double()],
            torch.zeros(1, 5), 2, [0.5, 0.25],
        )  # fmt: skip
    with pytest.raises(ValueError, match="channels"):
        roi_align(
            [torch.ones(1, 1, 8, 8), torch.ones(1, 2, 4, 4)], torch.zeros(1, 5), 2, [0.5, 0.25]
        )


@ON_THE_CPU
def test_report_names_every_backend_with_a_reason():
    report = backend_report()
    assert [b.name for b in report.backends] == ["cpu", "cuda", "torchvision", "reference"]
    assert all(b.reason for b in report.backends)
    assert report.chosen["cpu"] == ("cpu" if load_extension().loaded else "torchvision")
    assert "cpu tensors: " in str(report)
