"""What every system of instance segmentation keeps: Mask R-CNN and the one-stage systems alike."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from seg_plugins.engine.accumulation import Parts
from seg_plugins.modeling.meta_arch.one_stage import ONE_STAGE_SYSTEMS

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks
from detectron2.utils.events import EventStorage
from devices import DEVICES, on_each_device
from instance_systems import ONE_STAGE, SIZE, SYSTEMS, assert_same, build, predict, sample, step
from torch import nn

# Of scores, where a GPU's kernels add in another order for another batch or layout.
TOLERANCES = {"cpu": 1e-4, "cuda": 1e-3}


@pytest.fixture(autouse=True)
def _full_precision() -> Iterator[None]:
    """On a GPU convolutions of float32 numbers, not of their first ten bits."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def with_masks(masks: torch.Tensor) -> dict:
    """A sample of given objects."""
    found = sample(*masks.shape[-2:], count=len(masks))
    found["instances"].gt_masks = BitMasks(masks)
    found["instances"].gt_boxes = BitMasks(masks).get_bounding_boxes()
    return found


def test_every_one_stage_system_is_here() -> None:
    named = {system.__name__ for system in ONE_STAGE_SYSTEMS} - {"OneStageInstanceSegmentor"} | {
        "AdaptIS"
    }
    assert named == set(ONE_STAGE)


@pytest.mark.parametrize("name", SYSTEMS)
class TestEverySystem:
    """By name, on each device; samples lie on the CPU, as mappers give them."""

    device: str

    @pytest.fixture(params=DEVICES, autouse=True)
    def _device(self, request: pytest.FixtureRequest) -> None:
        self.device = request.param

    def build(self, name: str) -> nn.Module:
        return build(name).to(self.device)

    def test_trains_on_any_objects_and_sizes(self, name) -> None:
        """None, single pixels, one that fills the image, sizes that nothing divides."""
        model = self.build(name)
        pixels = torch.zeros(3, 61, 83, dtype=torch.bool)
        pixels[0, 0, 0] = pixels[1, 60, 82] = pixels[2, 30, 40] = True
        whole = torch.ones(1, 33, 47, dtype=torch.bool)
        step(model, [sample(count=0), sample(count=0)])
        losses = step(model, [with_masks(pixels), with_masks(whole), sample(70, 50)])
        assert set(losses) == set(step(model, [sample()]))

    def test_gradient_reaches_every_parameter(self, name) -> None:
        model = self.build(name)
        step(model, [sample(count=4), sample(count=2)])
        trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        assert not [n for n, p in trained if p.grad is None]
        step(model, [sample(count=0)])
        of_no_object = [
            n for n, p in model.named_parameters() if p.requires_grad and p.grad is None
        ]
        # Detectron2's RoI heads leave out the mask head, and its other parts as well.
        assert name.startswith("MaskRCNN") or not of_no_object

    def test_a_batch_gives_what_its_images_give_alone(self, name) -> None:
        model = self.build(name)
        sizes = [SIZE, (50, 70), SIZE, (40, 90), (96, 64)]
        if name.startswith("MaskRCNN"):  # Detectron2 pads all images of a batch alike
            sizes = [SIZE] * 3
        batch = [{**sample(*size), "height": 80, "width": 100} for size in sizes]
        together = predict(model, batch)
        assert sum(map(len, together)) > 5
        for item, found in zip(batch, together, strict=True):
            (alone,) = predict(model, [item])
            assert_same(found, alone, TOLERANCES[self.device])

    def test_boxes_hold_their_masks(self, name) -> None:
        found = predict(self.build(name), [{**sample(), "height": 75, "width": 91}])[0]
        assert len(found)
        boxes = found.pred_boxes.tensor
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        masks = torch.from_numpy(np.asarray(found.pred_masks).astype(bool))
        if name.startswith("MaskRCNN"):
            return  # boxes are found first, and a mask may be empty
        assert boxes.cpu().equal(BitMasks(masks).get_bounding_boxes().tensor)
        assert (found.scores[:-1] >= found.scores[1:]).all()

    def test_channels_last_changes_rounding_only(self, name) -> None:
        model = self.build(name)
        batch = [sample()]
        expected = predict(model, batch)
        found = predict(model.to(memory_format=torch.channels_last), batch)
        assert_same(found[0], expected[0], TOLERANCES[self.device])

    def test_weights_survive_saving(self, name) -> None:
        model, other = self.build(name), self.build(name)
        for parameter in other.parameters():
            nn.init.zeros_(parameter)
        other.load_state_dict(model.state_dict())
        item = sample()
        assert_same(predict(other, [item])[0], predict(model, [item])[0], 1e-6)


@on_each_device
@pytest.mark.parametrize("name", ONE_STAGE)
def test_autocast(name, device) -> None:
    """bfloat16 in the network; losses are float32 and near those of float32."""
    model, batch = build(name).to(device), [sample()]
    plain = {key: loss.item() for key, loss in step(model, batch).items()}
    with torch.autocast(device, torch.bfloat16):
        half = step(model, batch)
        predict(model, batch)
    assert all(loss.dtype == torch.float32 for loss in half.values())
    for key, loss in half.items():
        assert loss.item() == pytest.approx(plain[key], rel=0.25, abs=0.05), key


@pytest.fixture
def in_float64(monkeypatch):
    """What is float32 otherwise; there a processor's rounding can turn off a ReLU."""
    before = torch.get_default_dtype()
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


# AdaptIS draws points of the whole batch for one loss, then for the other: parts draw other ones.
@on_each_device
@pytest.mark.parametrize("name", [name for name in ONE_STAGE if name != "AdaptIS"])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(name, device, in_float64) -> None:
    model, batch = build(name).to(device), [sample(count=4), sample(count=1), sample(count=0)]

    def losses(samples: list[dict]) -> dict[str, torch.Tensor]:
        model.train()
        for module in model.modules():  # statistics of a batch differ in parts
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        with EventStorage():
            return model(copy.deepcopy(samples))

    sum(losses(batch).values()).backward()
    wanted = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    parts = Parts([p for p in model.parameters() if p.requires_grad])
    for index, item in enumerate(batch):
        parts.add(losses([item]), 1, lambda loss: loss, last=index == 2)
    for key, parameter in model.named_parameters():
        if key in wanted:
            scale = wanted[key].abs().max().clamp(min=1e-3)
            assert (parameter.grad - wanted[key]).abs().max() <= 1e-9 * scale, key


@on_each_device
@pytest.mark.parametrize("name", ONE_STAGE)
def test_bitmasks_are_the_run_lengths(name, device) -> None:
    item = {**sample(), "height": 70, "width": 110}
    runs = predict(build(name).to(device), [item])[0]
    model = build(name, "MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT", "bitmask").to(device)
    bits = predict(model, [item])[0]
    assert torch.is_tensor(bits.pred_masks)
    assert np.array_equal(bits.pred_masks.cpu().numpy(), runs.pred_masks.to_bitmasks().astype(bool))


@on_each_device
@pytest.mark.parametrize("name", ONE_STAGE)
def test_six_hundred_objects(name, device) -> None:
    masks = torch.zeros(600, 96, 128, dtype=torch.bool)
    for index, mask in enumerate(masks):
        row, column = index // 30 * 4 + 2, index % 30 * 4 + 2
        mask[row : row + 3, column : column + 3] = True
    step(build(name).to(device), [with_masks(masks)])


@pytest.mark.parametrize("name", ONE_STAGE)
def test_a_sample_without_masks_names_the_fix(name) -> None:
    item = sample()
    item["instances"].remove("gt_masks")
    with pytest.raises(ValueError, match=r"set INPUT\.MAPPER to InstanceMapper"):
        build(name).train()([item])
