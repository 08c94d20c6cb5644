"""The forms of a prediction, for each kind of system, on outputs known by heart."""

from __future__ import annotations

import builtins
import json

from seg_plugins.prediction import ClassNameError, Prediction
from seg_plugins.prediction.labels import Label, Labels

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from stubs import PANOPTIC, SEMANTIC, RedChannel, instances, panoptic, predictor, stripes

IMAGE = np.full((12, 20, 3), 100, np.uint8)


@pytest.fixture
def semantic_prediction():
    return predictor(RedChannel())(stripes())


@pytest.fixture
def instance_prediction():
    labels = Labels(things=PANOPTIC.things)
    return Prediction.from_output({"instances": instances()}, IMAGE, labels, 0.5)


@pytest.fixture
def panoptic_prediction():
    output = {"panoptic_seg": panoptic(), "instances": instances()}
    return Prediction.from_output(output, IMAGE, PANOPTIC, 0.5)


def test_semantic_ids_come_from_the_highest_score(semantic_prediction):
    ids = semantic_prediction.semantic
    assert ids.dtype == np.uint8
    assert ids[0, 0] == 0
    assert ids[-1, 0] == 1
    assert (ids == 2).sum() == 6 * 4
    assert semantic_prediction.instances is semantic_prediction.panoptic is None


def test_one_logit_decides_between_two_classes():
    labels = Labels(stuff=SEMANTIC.stuff[:2])
    logits = torch.tensor([[[-1.0, 1.0]]])
    found = Prediction.from_output({"sem_seg": logits}, IMAGE[:1, :2], labels, 0.5)
    assert found.semantic.tolist() == [[0, 1]]


def test_more_classes_than_8_bits_hold_take_16():
    labels = Labels(stuff=tuple(Label(f"c{i}", (0, 0, 0), i, False) for i in range(300)))
    scores = torch.zeros(300, 2, 2)
    scores[299] = 1
    found = Prediction.from_output({"sem_seg": scores}, IMAGE[:2, :2], labels, 0.5)
    assert found.id_mask().dtype == np.uint16
    assert (found.id_mask() == 299).all()


def test_regions_of_classes_have_their_pixels(semantic_prediction):
    areas = {region.label.name: region.area for region in semantic_prediction.regions}
    assert areas == {"sky": 6 * 20 - 3 * 4, "grass": 6 * 20 - 3 * 4, "person": 24}
    person = semantic_prediction.regions[2]
    assert person.box == [8, 3, 4, 6]
    assert np.array_equal(coco_mask.decode(person.mask), semantic_prediction.semantic == 2)


def test_instances_are_sorted_and_filtered_by_score(instance_prediction):
    found = instance_prediction.instances
    assert found.scores.tolist() == pytest.approx([0.9, 0.6])
    assert instance_prediction.masks.sum(axis=(1, 2)).tolist() == [36, 16]
    # The confident one keeps the pixels that both claim.
    mask = instance_prediction.id_mask()
    assert (mask == 1).sum() == 36
    assert (mask == 2).sum() == 16 - 4
    assert instance_prediction.semantic is None


def test_panoptic_segments_give_semantic_classes(panoptic_prediction):
    semantic = panoptic_prediction.semantic
    assert semantic[0, 0] == PANOPTIC.ignore_label  # its id is listed nowhere
    assert (semantic == 0).sum() == 36
    assert semantic[0, 19] == 2
    assert semantic[11, 0] == 3
    areas = [region.area for region in panoptic_prediction.regions]
    assert areas == [18, 18, 120 - 24 - 1, 120 - 12]
    assert [region.segment_id for region in panoptic_prediction.regions] == [300, 70000, 4, 3]


def test_thing_categories_may_be_places_among_all_classes():
    labels = Labels(
        things=PANOPTIC.things, stuff=(*PANOPTIC.stuff[2:], *PANOPTIC.things), things_in_stuff=True
    )
    ids = torch.ones(2, 2, dtype=torch.int32)
    output = {"panoptic_seg": (ids, [{"id": 1, "isthing": True, "category_id": 3}])}
    found = Prediction.from_output(output, IMAGE[:2, :2], labels, 0.5)
    assert found.regions[0].label.name == "dog"
    assert (found.semantic == 3).all()


def test_instance_categories_may_be_places_among_all_classes():
    """As of a panoptic system with THING_IDS, asked for instances alone."""
    labels = Labels(
        things=PANOPTIC.things, stuff=(*PANOPTIC.stuff[2:], *PANOPTIC.things), things_in_stuff=True
    )
    output = {"instances": instances()}
    output["instances"].pred_classes = torch.tensor([2, 2, 3])
    found = Prediction.from_output(output, IMAGE, labels, 0.2)
    assert [region.label.name for region in found.regions] == ["person", "person", "dog"]
    assert [region.label.category_id for region in found.regions] == [1, 1, 2]


def test_the_color_mask_has_the_classes_colors(semantic_prediction):
    colors = semantic_prediction.color_mask()
    assert colors[0, 0].tolist() == [0, 0, 200]
    assert colors[4, 9].tolist() == [200, 0, 0]


def test_the_overlay_mixes_image_and_color_above_a_legend(semantic_prediction):
    bare = semantic_prediction.draw(with_legend=False)
    assert bare.shape == (12, 20, 3)
    expected = 0.45 * np.array([40, 40, 90]) + 0.55 * np.array([0, 0, 200])
    assert np.abs(bare[0, 0] - expected).max() <= 1
    tall = Prediction(
        np.zeros((100, 50, 3), np.uint8), SEMANTIC, semantic=np.zeros((100, 50), np.uint8)
    ).draw()
    assert tall.shape[1] == 50
    assert (tall[100:] == (0, 0, 200)).all(axis=2).sum() >= 100  # a swatch of the sky
    assert (tall[100:] < 100).all(axis=2).any()  # text


def test_default_foreground_leaves_the_largest_stuff(semantic_prediction, panoptic_prediction):
    # Sky and grass are equal here, the first is left out.
    assert np.array_equal(semantic_prediction.foreground(), semantic_prediction.semantic != 0)
    # Grass is the largest; unlisted pixels are nothing.
    expected = np.isin(panoptic_prediction.semantic, (0, 2))
    assert np.array_equal(panoptic_prediction.foreground(), expected)


def test_default_foreground_leaves_the_background_class():
    labels = Labels(stuff=(Label("Background", (0, 0, 0), 0, False), *SEMANTIC.stuff[1:]))
    ids = np.array([[0, 1, 1, 1]], np.uint8)
    found = Prediction(IMAGE[:1, :4], labels, semantic=ids)
    assert found.foreground().tolist() == [[False, True, True, True]]


def test_instances_are_all_foreground(instance_prediction):
    assert np.array_equal(instance_prediction.foreground(), instance_prediction.masks.any(axis=0))


def test_classes_are_chosen_by_name(semantic_prediction):
    assert np.array_equal(
        semantic_prediction.foreground(["Person"]), semantic_prediction.semantic == 2
    )
    with pytest.raises(ClassNameError, match=r"no class 'persn' in this model\. Nearest: person"):
        semantic_prediction.foreground(["persn"])


def test_a_class_that_is_not_in_the_image_gives_an_empty_mask(panoptic_prediction):
    assert not panoptic_prediction.foreground(["dog"]).any()


def test_save_writes_what_is_asked_for(semantic_prediction, tmp_path):
    paths = semantic_prediction.save(tmp_path, "a.b", save=("mask", "color", "json"))
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "mask/a.b.png", "color/a.b.png", "statistics.csv", "instances.json",
    ]  # fmt: skip
    assert np.array_equal(np.asarray(Image.open(paths[0])), semantic_prediction.semantic)
    assert np.asarray(Image.open(paths[1]))[4, 9].tolist() == [200, 0, 0]  # RGB, not BGR
    assert len(json.loads(paths[3].read_bytes())["annotations"]) == 3


def test_save_of_something_impossible_is_an_error(semantic_prediction, tmp_path):
    with pytest.raises(ValueError, match="no output 'overlays'; there are: overlay"):
        semantic_prediction.save(tmp_path, save=("overlays",))
    with pytest.raises(ValueError, match="panoptic output needs a panoptic system"):
        semantic_prediction.save(tmp_path, save=("panoptic",))
    assert not list(tmp_path.iterdir())


def test_supervision_gets_every_region(panoptic_prediction):
    supervision = pytest.importorskip("supervision")
    found = panoptic_prediction.to_supervision()
    assert isinstance(found, supervision.Detections)
    assert found.data["class_name"].tolist() == ["person", "person", "sky", "grass"]
    assert found.xyxy[0].tolist() == [2, 2, 5, 8]
    assert found.mask.shape == (4, 12, 20)
    assert found.confidence.tolist() == pytest.approx([0.9, 0.8, 1, 1])


def test_without_supervision_everything_else_works(panoptic_prediction, monkeypatch):
    original = builtins.__import__

    def refuse(name, *arguments):
        if name == "supervision":
            raise ModuleNotFoundError("No module named 'supervision'", name=name)
        return original(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert panoptic_prediction.draw().shape[0] == 12
    with pytest.raises(ModuleNotFoundError, match="supervision"):
        panoptic_prediction.to_supervision()
