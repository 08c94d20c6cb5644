"""One iteration against its definition: accumulation, NaN, clipping, late reading."""

from __future__ import annotations

import itertools
import json

import seg_plugins
from seg_plugins.config import ConfigError
from seg_plugins.engine.failures import DataWorkerError, NonFiniteError
from seg_plugins.engine.solver import StepOptions, accumulation, build_clip, build_optimizer
from seg_plugins.engine.train_step import TrainStep
from seg_plugins.modeling.loss_terms import Losses
from seg_plugins.modeling.semantic_loss import SemanticLoss

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn


class PixelModel(nn.Module):
    """A 1x1 convolution with batch norm behind the loss of the semantic heads."""

    def __init__(self, norm=False):
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.loss = SemanticLoss(num_classes=4)

    def forward(self, batch):
        logits = self.norm(self.conv(torch.stack([s["image"] for s in batch])))
        targets = torch.stack([s["sem_seg"] for s in batch])
        return Losses({"loss_sem_seg": self.loss(logits, targets)})


class Loader:
    """The same batches from the first on, wherever it starts."""

    def __init__(self, batches):
        self.batches = batches

    def start_at(self, batch, drawn=None):
        pass

    def __iter__(self):
        return itertools.cycle(self.batches)

    def dead_workers(self):
        return []


def samples(count, bad=False):
    """Images 5x6; the number of labelled pixels differs from image to image."""
    generator = torch.Generator().manual_seed(count)
    result = []
    for i in range(count):
        image = torch.randn(3, 5, 6, generator=generator)
        label = torch.randint(4, (5, 6), generator=generator)
        label.view(-1)[: 6 * i] = 255
        if bad and i == 1:
            image[0, 2, 2] = float("nan")
        result.append({"image": image, "sem_seg": label, "file_name": f"{i}.png",
                       "stream_position": i})  # fmt: skip
    return result


def step(model, batches, tmp_path, optimizer="SGD", **options):
    cfg = seg_plugins.get_cfg()
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BASE_LR = optimizer, 0.1
    made = TrainStep(
        model=model, loader=Loader(batches), optimizer=build_optimizer(cfg, model), device="cpu",
        output_dir=str(tmp_path), options=StepOptions(**options),
    )  # fmt: skip
    made.start(0)
    return made


def run(made, iterations):
    with EventStorage() as storage:
        for made.iter in range(iterations):
            storage.iter = made.iter
            made.run_step()
        made.settle()
    return storage


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_accumulated_parts_make_the_step_of_the_whole_batch(tmp_path, parts):
    models = [PixelModel(), PixelModel()]
    batch = samples(5)
    # The last image has few labels left: a mean of means would be another step.
    storages = [
        run(step(model, [batch], tmp_path, accumulate=n), 3)
        for model, n in zip(models, (1, parts), strict=True)
    ]
    for a, b in zip(*(m.parameters() for m in models), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    losses = [s.history("total_loss").latest() for s in storages]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_parts_without_labels_do_no_harm(tmp_path):
    batch = samples(2)
    batch[0]["sem_seg"].fill_(255)
    models = [PixelModel(), PixelModel()]
    for model, n in zip(models, (1, 2), strict=True):
        run(step(model, [batch], tmp_path, accumulate=n), 2)
    torch.testing.assert_close(models[0].conv.weight, models[1].conv.weight)


def test_the_number_of_parts_is_checked():
    cfg = seg_plugins.get_cfg()
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATE = 4, 8
    with pytest.raises(ConfigError, match="ACCUMULATE 8 should be from 1 to 4"):
        accumulation(cfg)


@pytest.mark.parametrize("delay", [0, 1])
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_nan_stops_before_weights_and_momenta_change(tmp_path, delay, optimizer):
    model = PixelModel()
    made = step(model, [samples(2), samples(3, bad=True)], tmp_path, optimizer, delay=delay)
    run(made, 1)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    momenta = [v.clone() for s in made.optimizer.state.values() for v in s.values()]
    made.iter = 1

    def second():
        with EventStorage(1):
            made.run_step()
            made.settle()

    with pytest.raises(NonFiniteError, match=r"iteration 1: .*'1\.png'") as error:
        second()
    assert "loss_sem_seg = nan" in str(error.value)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
    after = [v for s in made.optimizer.state.values() for v in s.values()]
    assert all(torch.equal(a, b) for a, b in zip(momenta, after, strict=True))
    dump = json.loads((tmp_path / "nan_dump" / "iteration_0000001_process_0.json").read_text())
    assert dump["files"] == ["0.png", "1.png", "2.png"]
    assert dump["stream_positions"] == [0, 1, 2]
    assert dump["gradients_not_finite"][0] == "conv.weight"


def test_a_first_batch_with_nan_leaves_no_trace_when_it_is_left_out(tmp_path):
    """Not in the momenta either, which begin with that step, nor in running statistics."""
    models = [PixelModel(norm=True), PixelModel(norm=True)]
    good = samples(2)
    made = step(models[0], [samples(3, bad=True), good, good], tmp_path, max_skips=1)
    run(made, 3)
    assert made.verdicts.skipped == 1
    run(step(models[1], [good], tmp_path), 2)
    for (name, a), b in zip(
        models[0].state_dict().items(), models[1].state_dict().values(), strict=True
    ):
        if "num_batches" not in name:
            assert torch.equal(a, b), name


def test_leaving_out_has_a_cap(tmp_path):
    made = step(PixelModel(), [samples(3, bad=True)], tmp_path, max_skips=2)
    with pytest.raises(NonFiniteError, match="iteration 2"):
        run(made, 5)


def test_a_gradient_without_a_number_is_found_when_the_loss_has_one(tmp_path):
    model = PixelModel()
    model.conv.bias.register_hook(lambda grad: grad * float("inf"))
    with pytest.raises(NonFiniteError, match=r"Gradient is not finite .*gradients of conv\.bias"):
        run(step(model, [samples(2)], tmp_path), 1)


def test_boxes_that_are_not_finite_name_the_files(tmp_path):
    class Boxes(PixelModel):
        def forward(self, batch):
            raise FloatingPointError("Predicted boxes or scores contain Inf/NaN.")

    with pytest.raises(NonFiniteError, match=r"Boxes are not finite at iteration 0: .*'1\.png'"):
        run(step(Boxes(), [samples(2)], tmp_path), 1)
    assert list((tmp_path / "nan_dump").iterdir())


def test_memory_that_runs_out_is_explained(tmp_path):
    from seg_plugins.engine.failures import OutOfMemoryError

    class Greedy(PixelModel):
        def forward(self, batch):
            torch.empty(1 << 60, dtype=torch.uint8)

    with pytest.raises(OutOfMemoryError, match=r"2 images .*5x6, 5x6.*SOLVER\.ACCUMULATE"):
        run(step(Greedy(), [samples(2)], tmp_path), 1)


@pytest.mark.parametrize("error", [ConnectionResetError, EOFError, RuntimeError])
def test_a_dead_data_worker_is_named_however_its_death_shows(tmp_path, error):
    class Dying(Loader):
        def __iter__(self):
            raise error
            yield

        def dead_workers(self):
            return ["Data worker 1 died of signal 9 at 3.png"]

    made = step(PixelModel(), [], tmp_path)
    made._batches, made.data_loader = iter(Dying([])), Dying([])
    with pytest.raises(DataWorkerError, match=r"at 3\.png\. .*NUM_WORKERS"):
        run(made, 1)


def test_late_reading_gives_each_value_to_its_iteration(tmp_path):
    batches = [samples(2), samples(3), samples(4)]
    histories = [
        run(step(PixelModel(), batches, tmp_path, delay=delay), 5).history("total_loss").values()
        for delay in (0, 1)
    ]
    assert histories[0] == histories[1]
    assert [iteration for _, iteration in histories[1]] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("value", [[1.0, -1.0], [0.5]]),
        ("norm", [[0.6, -0.8], [0.5]]),
        ("full_model", [[3 / 5.02494, -4 / 5.02494], [0.5 / 5.02494]]),
    ],
)
def test_clipping_by_hand(kind, expected):
    cfg = seg_plugins.get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = kind
    gradients = [torch.tensor([3.0, -4.0]), torch.tensor([0.5])]
    build_clip(cfg)(gradients, torch.tensor(25.25).sqrt())
    for found, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-4, atol=1e-5)
