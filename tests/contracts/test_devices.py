"""Instance and panoptic systems give on a GPU what they give on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

from seg_plugins import load_config

import pytest
import torch
from detectron2.modeling import build_model
from instance_systems import SYSTEMS, assert_same, build, predict, sample, step

pytestmark = pytest.mark.needs_cuda
# They draw points or regions, on each device others.
DRAWING = ("MaskRCNNFPN", "MaskRCNNC4", "InstanceFCN", "AdaptIS")


@pytest.fixture(autouse=True)
def _full_precision() -> Iterator[None]:
    """Convolutions of float32 numbers, not of their first ten bits."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@pytest.mark.parametrize("name", SYSTEMS)
def test_instances_are_those_of_the_cpu(name: str) -> None:
    model = build(name)
    batch = [{**sample(64, 96), "height": 80, "width": 100}]
    (expected,) = predict(model, batch)
    (found,) = predict(model.cuda(), batch)
    assert len(expected)
    assert_same(found.to("cpu"), expected, 1e-3)


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("setting", ["float32", "channels last, bfloat16"])
def test_losses_are_those_of_the_cpu(name: str, setting: str) -> None:
    model, batch = build(name), [sample(count=4), sample(count=0), sample(70, 50)]
    expected = {key: loss.item() for key, loss in step(model, batch).items()}
    model.cuda()
    if setting != "float32":
        model.to(memory_format=torch.channels_last)
    with torch.autocast("cuda", torch.bfloat16, enabled=setting != "float32"):
        found = step(model, batch)
    assert set(found) == set(expected)
    if name not in DRAWING:
        near = {"rel": 1e-3, "abs": 1e-4} if setting == "float32" else {"rel": 0.25, "abs": 0.05}
        for key, loss in found.items():
            assert loss.item() == pytest.approx(expected[key], **near), key


@pytest.mark.parametrize("name", ["fcn", "bottom_up", "solo_v2", "adaptis"])
def test_panoptic_segments_are_those_of_the_cpu(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(load_config(f"shapes/panoptic_{name}.yaml", ["MODEL.DEVICE", "cpu"])).eval()
    batch = [{**sample(64, 96), "height": 80, "width": 100}]
    with torch.no_grad():
        expected, segments = model(batch)[0]["panoptic_seg"]
        found, found_segments = model.cuda()(batch)[0]["panoptic_seg"]
    assert [s["category_id"] for s in found_segments] == [s["category_id"] for s in segments]
    assert (found.cpu() == expected).float().mean() > 0.995  # ties of scores fall either way
