from seg_plugins.ops import max_unpool
from seg_plugins.ops._extension import load_extension
from seg_plugins.ops.max_unpool import IndexedMaxPool2d, max_pool_indexed, max_unpool_indexed

import pytest
import torch
import torch.nn.functional as F

# torch refuses windows larger than the input: 1x1 and 16x16 have cases of their own.
WINDOWS = [(2, 2), (3, 3), (3, 2), (2, 1), (2, 3)]
SIZES = [(8, 8), (7, 5), (17, 16)]


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def backend(request, device, monkeypatch) -> str:
    if device == "cuda" and request.param == "compiled":
        pytest.skip("compiled for the CPU only")
    if request.param == "torch":
        monkeypatch.setattr(max_unpool, "_compiled", lambda x: False)
    elif not load_extension().loaded:
        pytest.skip(load_extension().reason)
    return request.param


def test_hand_made_numbers() -> None:
    x = torch.tensor([[1.0, 9, 2], [3, 4, 5], [6, 7, 8]])[None, None]
    values, codes = max_pool_indexed(x)
    assert values.tolist() == [[[[9, 5], [7, 8]]]]
    assert codes.tolist() == [[[[1, 2], [1, 0]]]]
    back = max_unpool_indexed(values, codes, (3, 3))
    assert back.tolist() == [[[[0, 9, 0], [0, 0, 5], [0, 7, 8]]]]


@pytest.mark.parametrize(("kernel", "stride"), WINDOWS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_pooling_equals_torch(size, kernel: int, stride: int, dtype) -> None:
    x = torch.randn(2, 3, *size).to(dtype).requires_grad_()
    values, codes = max_pool_indexed(x, kernel, stride)
    expected = F.max_pool2d(x, kernel, stride, ceil_mode=True)
    assert torch.equal(values, expected)
    assert codes.dtype == torch.uint8
    grad = torch.randint(-3, 4, expected.shape).to(dtype)  # sums are exact in every type
    found, reference = (torch.autograd.grad(y, x, grad)[0] for y in (values, expected))
    assert torch.equal(found, reference)


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 3), (2, 3)])
@pytest.mark.parametrize("size", SIZES)
def test_unpooling_equals_torch(size, kernel: int, stride: int) -> None:
    x = torch.randn(2, 3, *size)
    pooled, index = F.max_pool2d(x, kernel, stride, ceil_mode=True, return_indices=True)
    _, codes = max_pool_indexed(x, kernel, stride)
    y = torch.randn_like(pooled).requires_grad_()
    found = max_unpool_indexed(y, codes, size, kernel, stride)
    expected = torch.zeros(2, 3, size[0] * size[1]).scatter(2, index.flatten(2), y.flatten(2))
    assert torch.equal(found, expected.view(2, 3, *size))
    grad = torch.randn_like(found)
    assert torch.equal(*(torch.autograd.grad(z, y, grad.view_as(z))[0] for z in (found, expected)))


def test_equals_nn_max_unpool2d_with_output_size() -> None:
    x = torch.randn(1, 4, 10, 12)
    pooled, index = F.max_pool2d(x, 2, return_indices=True)
    values, codes = max_pool_indexed(x)
    expected = F.max_unpool2d(pooled, index, 2, output_size=(10, 12))
    assert torch.equal(max_unpool_indexed(values, codes, (10, 12)), expected)


def test_overlapping_windows_that_remember_one_pixel() -> None:
    # The peak in the middle is the maximum of all four 2x2 windows.
    x = torch.zeros(1, 1, 3, 3)
    x[..., 1, 1] = 5.0
    _, codes = max_pool_indexed(x, 2, 1)
    y = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], requires_grad=True)
    out = max_unpool_indexed(y, codes, (3, 3), 2, 1)
    assert out[0, 0, 1, 1].item() == 4.0
    assert out.sum().item() == 4.0
    out.backward(torch.full((1, 1, 3, 3), 7.0))
    assert y.grad.eq(7).all()


def test_gradients_numerically() -> None:
    x = torch.randperm(60, dtype=torch.float64).view(1, 2, 5, 6).requires_grad_()

    def round_trip(x: torch.Tensor) -> torch.Tensor:
        values, codes = max_pool_indexed(x)
        return max_unpool_indexed(values.sin(), codes, (5, 6))

    assert torch.autograd.gradcheck(round_trip, (x,), eps=1e-3, atol=1e-4)


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2)])
def test_second_derivatives_numerically(kernel: int, stride: int) -> None:
    x = torch.randperm(60, dtype=torch.float64).view(1, 2, 5, 6).requires_grad_()
    codes = max_pool_indexed(x, kernel, stride)[1]
    y = torch.randn(codes.shape, dtype=torch.float64, requires_grad=True)

    def pool(x: torch.Tensor) -> torch.Tensor:
        return max_pool_indexed(x, kernel, stride)[0].sin()

    def unpool(y: torch.Tensor) -> torch.Tensor:
        return max_unpool_indexed(y, codes, (5, 6), kernel, stride).sin()

    assert torch.autograd.gradgradcheck(pool, (x,), eps=1e-3, atol=1e-4)
    if kernel == stride:  # where windows overlap, the first derivative is torch's own convention
        assert torch.autograd.gradgradcheck(unpool, (y,), eps=1e-3, atol=1e-4)


def test_second_derivatives_equal_torchs() -> None:
    x = torch.randn(2, 3, 9, 8, requires_grad=True)
    penalties = []
    for values in (max_pool_indexed(x, 3, 2)[0], F.max_pool2d(x, 3, 2, ceil_mode=True)):
        (gradient,) = torch.autograd.grad((values**3).sum(), x, create_graph=True)
        penalties.append(torch.autograd.grad((gradient**2).sum(), x)[0])
    assert penalties[0].any()
    torch.testing.assert_close(*penalties)


def test_nan_and_minus_infinity() -> None:
    x = torch.tensor([[1.0, float("nan")], [2.0, 3.0]])[None, None]
    assert max_pool_indexed(x)[0].isnan().all()
    lowest = torch.full((1, 1, 2, 2), -torch.inf)
    values, codes = max_pool_indexed(lowest)
    assert values.item() == -torch.inf
    assert codes.item() == 0


def test_channels_last_and_slices() -> None:
    x = torch.randn(2, 4, 9, 9)[..., 1:, 1:]
    expected = max_pool_indexed(x.contiguous())
    for same in (x, x.contiguous(memory_format=torch.channels_last)):
        assert all(map(torch.equal, max_pool_indexed(same), expected))


@pytest.mark.parametrize(("size", "kernel"), [((1, 1), 2), ((17, 40), 16)])
def test_small_maps_and_large_windows(size, kernel: int) -> None:
    x = torch.randn(1, 2, *size)
    values, codes = max_pool_indexed(x, kernel)
    assert torch.equal(values, F.max_pool2d(x, kernel, ceil_mode=True))
    back = max_unpool_indexed(values, codes, size, kernel)
    assert torch.equal(back, torch.where(back != 0, x, 0.0))
    assert back.count_nonzero() == values.numel()


def test_empty_batch() -> None:
    values, codes = max_pool_indexed(torch.randn(0, 3, 4, 4))
    assert values.shape == codes.shape == (0, 3, 2, 2)


def test_layer() -> None:
    values, codes = IndexedMaxPool2d(2)(torch.randn(1, 1, 5, 5))
    assert values.shape == codes.shape == (1, 1, 3, 3)


def test_codes_of_another_shape_or_type() -> None:
    with pytest.raises(ValueError, match="uint8"):
        max_unpool_indexed(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2).long(), (4, 4))
    with pytest.raises(ValueError, match="shape"):
        max_unpool_indexed(
            torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 1, 2, dtype=torch.uint8), (4, 4)
        )


def test_code_outside_the_output(backend: str) -> None:
    if backend == "torch":
        pytest.skip("a scatter does not know about rows")
    with pytest.raises(IndexError, match="outside the output of 3 x 3"):
        max_unpool_indexed(
            torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 3, dtype=torch.uint8), (3, 3)
        )


def test_only_codes_are_kept_for_the_backward_pass() -> None:
    kept: list[torch.Tensor] = []
    x = torch.randn(1, 2, 8, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        values, codes = max_pool_indexed(x)
        max_unpool_indexed(values, codes, (8, 8))
    assert {t.dtype for t in kept} == {torch.uint8}
    assert all(t.numel() == codes.numel() for t in kept)


def test_operators_are_described_fully(backend: str) -> None:
    if backend == "torch":
        pytest.skip("compiled operators only")
    ops, x = torch.ops.seg_plugins, torch.randn(2, 3, 7, 5)
    values, codes = ops.max_pool_codes(x, 3, 2)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(ops.max_pool_codes, (x, 3, 2), test_utils=checks)
    torch.library.opcheck(
        ops.max_unpool_codes, (values, codes, 3, 2, [7, 5], True), test_utils=checks
    )
    torch.library.opcheck(ops.gather_codes, (x, codes, 3, 2), test_utils=checks)
