"""AdaptIS as a system: what is found, what is learned in which stage, labels made of objects."""

from __future__ import annotations

import copy
import functools

from seg_plugins import load_config
from seg_plugins.config import ConfigError
from seg_plugins.engine.checks.consistency import check_classes
from seg_plugins.modeling.instance_representations.adaptis import AdaptIS, AdaptISOutputs
from seg_plugins.modeling.instance_representations.finishing import finish
from seg_plugins.modeling.instance_representations.mask_forms import DenseMasks
from seg_plugins.modeling.loss_terms import Losses
from seg_plugins.modeling.meta_arch.adaptis import labels_of_objects
from seg_plugins.modeling.meta_arch.one_stage import truth_of
from seg_plugins.prediction.labels import labels_from_config
from seg_plugins.testing import check_instance_system
from seg_plugins.testing.samples import instance_sample

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from detectron2.utils.events import EventStorage
from torch import nn

SHAPES = "shapes/adaptis_r18.yaml"
SMALL = [
    *("MODEL.DEVICE", "cpu", "MODEL.FPN.OUT_CHANNELS", 32, "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32),
    *("MODEL.ADAPTIS.MASK_CHANNELS", 8, "MODEL.ADAPTIS.NUM_PROPOSAL_POINTS", 3),
    *("MODEL.ADAPTIS.NUM_POINTS", 2, "MODEL.ADAPTIS.CODE_SIZE", 16),
]


def system(*options, name=SHAPES):
    """A fresh copy: building takes longer than most tests."""
    return copy.deepcopy(built(options, name))


def build(options, name=SHAPES):
    torch.manual_seed(0)
    return build_model(load_config(name, [*SMALL, *options]))


built = functools.cache(build)


def losses_of(model, batch):
    with EventStorage():
        return model.train()(batch)


def drawn(*masks, classes):
    """A sample with these objects."""
    stack = torch.stack(masks)
    instances = Instances(stack.shape[1:])
    instances.gt_masks = BitMasks(stack)
    instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    instances.gt_classes = torch.tensor(classes)
    return {"image": torch.zeros(3, *stack.shape[1:]), "instances": instances}


def disc(y, x, radius, size, hole=0):
    rows, columns = torch.meshgrid(*(torch.arange(n) + 0.5 for n in size), indexing="ij")
    distance = (rows - y).hypot(columns - x)
    return (distance < radius) & (distance >= hole)


class _Told(AdaptIS):
    """Knows the objects: at a point it gives the one that lies there, at stride 4."""

    objects: torch.Tensor

    def masks_at(self, outputs, points, images, size):
        columns, rows = points.long().T
        found = self.objects[:, rows, columns].int().argmax(dim=0)
        cells = nn.functional.avg_pool2d(self.objects[:, None].float(), 4)[:, 0]
        return (cells[found] * 2 - 1) * 8


def told(objects, classes, size, *, points, background=3, values=None, **options):
    """The representation and what its network would say of these objects and points."""
    representation = _Told(
        num_classes=3, thing_ids=[0, 1, 2], in_feature="p2", in_channels=4, stride=4, **options
    )
    representation.objects = objects
    labels = torch.full(size, background)
    for mask, kind in zip(objects, classes, strict=True):
        labels[mask] = kind
    semantic = nn.functional.one_hot(labels, 4).permute(2, 0, 1)[None].float() * 12
    proposals = torch.full((1, 1, size[0] // 4, size[1] // 4), -9.0)
    for place, (y, x) in enumerate(points):
        proposals[0, 0, y // 4, x // 4] = values[place] if values else 5.0 - place
    nothing = torch.zeros(1, 4, size[0] // 4, size[1] // 4)
    return representation, AdaptISOutputs(nothing, nothing, proposals, semantic)


class TestFind:
    SIZE = (64, 96)

    def find(self, *parts, image_size=None, **options):
        representation, outputs = told(*parts, self.SIZE, **options)
        (found,) = representation.find(outputs, self.SIZE, [image_size or self.SIZE])
        return found

    def test_what_was_drawn_comes_back(self):
        ring = disc(40, 70, 20, self.SIZE, hole=8)
        objects = torch.stack([disc(20, 20, 14, self.SIZE), ring, disc(56, 30, 7, self.SIZE)])
        # Two points on the ring: its second mask is all taken. One on the background.
        points = [(20, 20), (40, 56), (40, 84), (56, 30), (4, 92)]
        found = self.find(objects, [2, 0, 1], points=points)
        assert found.pred_classes.sort().values.tolist() == [0, 1, 2]
        assert (found.scores > 0.75).all()
        done = finish(found, *self.SIZE, "bitmask")
        expected = objects[[[2, 0, 1].index(kind) for kind in done.pred_classes.tolist()]]
        shared = (done.pred_masks & expected).flatten(1).sum(1)
        union = (done.pred_masks | expected).flatten(1).sum(1)
        assert (shared / union > 0.75).all()

    def test_points_off_the_things_are_no_candidates(self):
        objects = disc(20, 20, 14, self.SIZE)[None]
        assert len(self.find(objects, [0], points=[(20, 60)])) == 0
        assert len(self.find(objects, [0], points=[])) == 0

    def test_points_in_the_padding_are_no_candidates(self):
        objects = disc(32, 80, 14, self.SIZE)[None]
        assert len(self.find(objects, [0], points=[(32, 88)], image_size=(64, 86))) == 0
        found = self.find(objects, [0], points=[(32, 80)], image_size=(64, 86))
        assert finish(found, 64, 86, "bitmask").pred_boxes.tensor[0, 2] == 86

    def test_a_mask_of_few_pixels_is_none(self):
        objects = disc(20, 20, 14, self.SIZE)[None]
        area = int(finish(self.find(objects, [0], points=[(20, 20)]), *self.SIZE, "bitmask")
                   .pred_masks.sum())  # fmt: skip
        for least, count in ((area, 1), (area + 1, 0)):
            assert len(self.find(objects, [0], points=[(20, 20)], min_area=least)) == count

    def test_the_best_candidates_alone_are_looked_at(self):
        objects = torch.stack([disc(20, 20, 14, self.SIZE), disc(40, 70, 14, self.SIZE)])
        found = self.find(objects, [0, 1], points=[(20, 20), (40, 70)], max_candidates=1)
        assert found.pred_classes.tolist() == [0]
        values = [0.1, 0.3]
        found = self.find(
            objects, [0, 1], points=[(20, 20), (40, 70)], max_candidates=1, values=values
        )
        assert found.pred_classes.tolist() == [1]
        found = self.find(
            objects, [0, 1], points=[(20, 20), (40, 70)], values=[-0.1, 0.3], proposal_threshold=0.5
        )
        assert found.pred_classes.tolist() == [1]

    @pytest.mark.parametrize("pixels", [1, 64 * 96 * 3])
    def test_chunks_make_no_difference(self, pixels):
        objects = torch.stack([disc(16, 12 + 20 * i, 8, self.SIZE) for i in range(4)])
        points = [(16, 12 + 20 * i) for i in range(4)]
        found = self.find(objects, [0, 1, 2, 0], points=points, pixels_at_once=pixels)
        assert sorted(found.pred_classes.tolist()) == [0, 0, 1, 2]

    def test_not_without_semantic_labels(self):
        representation, outputs = told(
            disc(20, 20, 14, self.SIZE)[None], [0], self.SIZE, points=[(20, 20)]
        )
        with pytest.raises(ValueError, match=r"outputs\.semantic"):
            representation.find(outputs._replace(semantic=None), self.SIZE, [self.SIZE])


def test_contract():
    check_instance_system(load_config(SHAPES, SMALL))


def test_an_image_alone_and_in_a_batch():
    model = system("MODEL.ADAPTIS.PROPOSAL_THR", 0.3, "MODEL.ADAPTIS.THING_THR", 0.3).eval()
    sizes = [(64, 96), (57, 93), (40, 50)]
    batch = [{"image": torch.rand(3, *size) * 255} for size in sizes]
    with torch.no_grad():
        together = model(batch)
        assert sum(len(found["instances"]) for found in together)
        for sample, found, size in zip(batch, together, sizes, strict=True):
            (alone,) = model([sample])
            assert alone["sem_seg"].shape[1:] == found["panoptic_seg"][0].shape == size
            difference = (alone["sem_seg"] - found["sem_seg"]).abs().max()
            assert difference <= 1e-4 * alone["sem_seg"].abs().max()
            a, b = alone["instances"], found["instances"]
            torch.testing.assert_close(a.scores, b.scores, atol=1e-4, rtol=1e-4)
            assert (np.asarray(a.pred_masks) != np.asarray(b.pred_masks)).mean() < 1e-4


def test_images_without_objects():
    model = system()
    losses = losses_of(model, [instance_sample(32, 32, 6, count=0) for _ in range(2)])
    assert losses["loss_mask"] == losses["loss_proposal"] == 0
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_losses_know_how_many_points_they_are_means_of():
    model = system()
    batch = [instance_sample(32, 64, 6, count=n) for n in (2, 0, 1)]
    losses = losses_of(model, batch)
    assert isinstance(losses, Losses)
    assert losses.loss("loss_mask")[0].count == 2 * 2
    assert losses.loss("loss_proposal")[0].count <= 2 * 3


@pytest.mark.parametrize("count", [1, 600])
def test_one_pixel_and_many_objects(count):
    masks = torch.zeros(count, 32, 40, dtype=torch.bool)
    masks.flatten(1)[torch.arange(count), torch.arange(count) * 2] = True
    losses = losses_of(system(), [drawn(*masks, classes=[0] * count) for _ in range(2)])
    assert all(loss.isfinite() for loss in losses.values())


def test_proposals_teach_the_proposal_head_alone():
    model = system()
    losses = losses_of(model, [instance_sample(64, 64, 6, count=2) for _ in range(2)])
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(
        losses["loss_proposal"], list(parameters.values()), allow_unused=True
    )
    reached = {
        name for name, g in zip(parameters, gradients, strict=True) if g is not None and g.any()
    }
    assert reached
    assert all(name.startswith("representation.proposal_head.") for name in reached)


class TestStages:
    def test_masks(self):
        model = system("MODEL.ADAPTIS.STAGE", "masks")
        losses = losses_of(model, [instance_sample(32, 32, 6, count=2) for _ in range(2)])
        assert set(losses) == {"loss_sem_seg", "loss_mask"}
        frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
        assert frozen == {
            n for n, _ in model.named_parameters() if n.startswith("representation.proposal_head.")
        }

    def test_proposals(self):
        model = system("MODEL.ADAPTIS.STAGE", "proposals")
        before = {name: value.clone() for name, value in model.state_dict().items()}
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
        losses = losses_of(model, [instance_sample(64, 64, 6, count=2) for _ in range(2)])
        assert set(losses) == {"loss_proposal"}
        sum(losses.values()).backward()
        optimizer.step()
        after = model.state_dict()
        changed = {name for name in after if not torch.equal(after[name], before[name])}
        assert "representation.proposal_head.0.weight" in changed
        # Neither weights nor running statistics of anything else.
        assert all(name.startswith("representation.proposal_head.") for name in changed)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["MODEL.ADAPTIS.STAGE", "both"], "joint, masks, proposals, not 'both'"),
            (["MODEL.ADAPTIS.NUM_POINTS", 1], "at least 2"),
            (["MODEL.SEM_SEG_HEAD.NUM_CLASSES", 9], "NUM_CLASSES 7, not 9"),
            (["MODEL.PANOPTIC_FPN.THING_IDS", (1, 2)], "must be 6 different labels below"),
            (["MODEL.META_ARCHITECTURE", "OneStageInstanceSegmentor",
              "MODEL.ONE_STAGE.REPRESENTATION", "AdaptIS"], "META_ARCHITECTURE AdaptIS"),
        ],
    )  # fmt: skip
    def test_settings_that_do_not_fit(self, options, message):
        with pytest.raises(ConfigError, match=message):
            system(*options)


class TestLabels:
    def test_smaller_objects_lie_in_front(self):
        size = (12, 16)
        small, large = disc(6, 6, 2, size), disc(6, 6, 5, size)
        sample = drawn(small, large, classes=[4, 1])
        labels = labels_of_objects(truth_of(sample, torch.device("cpu")), 6)
        assert (labels[small] == 4).all()
        assert (labels[large & ~small] == 1).all()
        assert (labels[~large] == 6).all()

    def test_are_made_where_a_sample_has_none(self):
        model = system()
        sample = instance_sample(32, 32, 6, count=2)
        truth = truth_of(sample, torch.device("cpu"))
        made = {**sample, "sem_seg": labels_of_objects(truth, 6)}
        for own in (sample, made):
            torch.manual_seed(0)
            own["losses"] = losses_of(model, [{**own}, {**own}])["loss_sem_seg"].item()
        assert sample["losses"] == pytest.approx(made["losses"], rel=1e-4)

    def test_are_not_made_where_there_is_stuff(self):
        model = system(name="shapes/panoptic_adaptis.yaml")
        sample = {**instance_sample(32, 32, 6), "file_name": "a.png"}
        with pytest.raises(ValueError, match=r"a\.png has no 'sem_seg' .*NUM_CLASSES 7"):
            losses_of(model, [sample])

    def test_have_the_names_of_the_objects(self):
        labels = labels_from_config(load_config(SHAPES))
        names = [label.name for label in labels.stuff]
        assert names == [*(label.name for label in labels.things), "background"]
        assert [label.is_thing for label in labels.stuff] == [True] * 6 + [False]
        ids = [label.category_id for label in labels.stuff]
        assert ids[:6] == [label.category_id for label in labels.things]
        assert len(set(ids)) == 7

    def test_datasets_without_labels_are_accepted(self):
        check_classes(load_config(SHAPES))
        check_classes(load_config("shapes/panoptic_adaptis.yaml"))
        wrong = ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", 7]
        with pytest.raises(ConfigError, match="NUM_CLASSES 8"):
            check_classes(load_config("shapes/panoptic_adaptis.yaml", wrong))


class TestPanoptic:
    def outputs(self, name, labels, thing_ids):
        """What comes out where the network finds two discs, of classes 1 and 5."""
        size = (64, 96)
        model = system(name=name).eval()
        one, other = disc(20, 20, 14, size), disc(40, 70, 14, size)
        told = Instances(size)
        told.scores, told.pred_classes = torch.tensor([0.9, 0.8]), torch.tensor([5, 1])
        stacked = torch.stack([one, other]).float()
        told.pred_masks = DenseMasks(stacked, 1)
        count = model.num_classes
        logits = nn.functional.one_hot(labels, count).permute(2, 0, 1).float() * 9
        return model._result({}, told, logits), one, other

    def test_stuff_under_the_instances(self):
        labels = torch.full((64, 96), 6)
        labels[:, 48:] = 7
        found, one, other = self.outputs("shapes/panoptic_adaptis.yaml", labels, range(6))
        ids, segments = found["panoptic_seg"]
        assert [s["category_id"] for s in segments] == [5, 1, 6, 7]
        assert [s["isthing"] for s in segments] == [True, True, False, False]
        assert torch.equal(ids == 1, one)
        assert torch.equal(ids == 2, other)
        assert torch.equal(ids == 3, (labels == 6) & ~one)
        assert (ids > 0).all()

    def test_where_labels_are_made_the_rest_is_void(self):
        labels = torch.full((64, 96), 6)
        found, one, other = self.outputs(SHAPES, labels, [])
        ids, segments = found["panoptic_seg"]
        assert [s["category_id"] for s in segments] == [5, 1]
        assert torch.equal(ids > 0, one | other)
        assert found["instances"].pred_classes.tolist() == [5, 1]


def test_losses_under_autocast():
    model = system().to(memory_format=torch.channels_last)
    batch = [instance_sample(64, 64, 6, count=3) for _ in range(2)]
    found = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses = losses_of(model, batch)
        assert all(loss.dtype == torch.float32 for loss in losses.values())
        found.append(torch.stack(list(losses.values())))
    torch.testing.assert_close(*found, rtol=0.1, atol=0.02)
    found[1].sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
