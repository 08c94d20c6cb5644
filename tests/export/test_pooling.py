"""Whether a SegNet's file has its maxima where the model has some."""

from __future__ import annotations

from seg_plugins import load_config
from seg_plugins.export import ExportError, export_model, pooling
from seg_plugins.ops.max_unpool import IndexedMaxPool2d, max_unpool_indexed

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn


class Unpooled(nn.Module):
    """The maxima of 2 x 2 windows in their places."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = IndexedMaxPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values, codes = self.backbone(x)
        return max_unpool_indexed(values, codes, (x.shape[-2], x.shape[-1]))


def followed(x: list[list[float]], code: list[list[int]]) -> tuple[list, int]:
    follower = pooling.Follower(Unpooled())
    codes = torch.tensor(code, dtype=torch.uint8)[None, None]
    with follower.following(lambda _: [codes]):
        return follower.model(torch.tensor(x)[None, None])[0, 0].tolist(), follower.elsewhere


def test_among_equals_the_files_choice_is_followed():
    image = [[5.0, 5.0, 1.0], [4.0, 5.0, 3.0]]
    assert followed(image, [[0, 2]]) == ([[5, 0, 0], [0, 0, 3]], 0)
    assert followed(image, [[3, 2]]) == ([[0, 0, 0], [0, 5, 3]], 1)


def test_equal_means_but_for_rounding():
    below = torch.tensor(5.0).nextafter(torch.tensor(0.0)).item()
    assert followed([[5.0, below], [1.0, 1.0]], [[1]]) == ([[0, 5], [0, 0]], 1)
    with pytest.raises(ExportError, match=r"smaller by 1\.00e-03"):
        followed([[5.0, 4.999], [1.0, 1.0]], [[1]])


@pytest.mark.parametrize(
    ("image", "code"),
    [
        ([[5.0, 5.0, 5.0], [5.0, 5.0, 5.0]], [[0, 1]]),  # beyond the right border
        ([[5.0, 5.0], [5.0, 5.0]], [[4]]),  # outside of the window
        ([[5.0, torch.nan], [5.0, 5.0]], [[0]]),
    ],
)
def test_what_is_no_maximum_at_all_is_an_error(image, code):
    with pytest.raises(ExportError, match="rounding explains"):
        followed(image, code)


def test_the_model_is_as_before_afterwards():
    follower = pooling.Follower(Unpooled())
    with follower.following(lambda _: []):
        pass
    assert follower.model(torch.ones(1, 1, 2, 2)).sum() == 1


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_a_file_that_unpools_elsewhere_is_refused(kind, tmp_path, monkeypatch):
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    original = getattr(pooling, f"{kind}_positions")

    def wrong(path):
        positions = original(path)

        def of_images(images):
            codes_of = positions(images)
            return lambda x: [code ^ 1 for code in codes_of(x)]

        return of_images

    monkeypatch.setattr(pooling, f"{kind}_positions", wrong)
    cfg = load_config(
        "_base_/segnet_basic.yaml",
        ["MODEL.SEGNET.BASIC_WIDTH", 8, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 2, "MODEL.DEVICE", "cpu"],
    )
    with pytest.raises(ExportError, match="rounding explains"):
        export_model(cfg, build_model(cfg), kind, tmp_path)
    assert not list(tmp_path.iterdir())
