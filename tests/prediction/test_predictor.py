"""The predictor: building it from a configuration, names of classes, batches."""

from __future__ import annotations

import logging

from seg_plugins import load_config
from seg_plugins.engine import WeightsError
from seg_plugins.modeling.sem_seg_heads.base import ScoreConv2d
from seg_plugins.prediction import Prediction, Predictor
from seg_plugins.prediction.errors import PredictionError
from seg_plugins.prediction.labels import labels_from_config

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image
from stubs import RedChannel, predictor, stripes

UNET = ["MODEL.UNET.WIDTH", "4", "MODEL.UNET.DEPTH", "3", "MODEL.DEVICE", "cpu",
        "MODEL.SEM_SEG_HEAD.IN_FEATURES", "['enc1', 'enc2', 'enc3']", "INPUT.FORMAT", "BGR",
        "INPUT.MIN_SIZE_TEST", "48"]  # fmt: skip


@pytest.fixture
def trained(tmp_path):
    """A configuration and weights, as a run leaves them."""
    cfg = load_config("quickstart/unet_shapes.yaml", UNET)
    model = build_model(cfg).eval()
    (tmp_path / "config.yaml").write_text(cfg.dump())
    torch.save({"model": model.state_dict()}, tmp_path / "model_final.pth")
    return tmp_path / "config.yaml", tmp_path / "model_final.pth", model


def test_a_run_predicts_what_its_model_does(trained):
    config, weights, model = trained
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    found = Predictor.from_config(config, weights)(image)
    sample = {"image": torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1)}  # BGR
    with torch.no_grad():
        expected = model([sample])[0]["sem_seg"].argmax(0)
    assert np.array_equal(found.semantic, expected)
    assert [label.name for label in found.labels.stuff][:2] == ["disc", "square"]
    assert found.labels.stuff[0].color == (230, 25, 75)


def test_files_arrays_and_pillow_images_are_the_same(trained, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    predict = Predictor.from_config(*trained[:2])
    file = tmp_path / "a.png"
    forms = [str(file), file, image, Image.fromarray(image)]
    results = predict(forms)
    assert isinstance(results, list)
    assert isinstance(predict(file), Prediction)
    for found in [*results, predict(image[:, :, ::-1], order="BGR")]:
        assert np.array_equal(found.semantic, results[0].semantic)


def test_images_of_one_size_are_predicted_together():
    model = RedChannel()
    predict = predictor(model, batch_size=2)
    small, large = stripes(12, 20), stripes(14, 20)
    found = predict([small, small, small, large])
    assert model.batches == [2, 1, 1]
    assert [p.semantic.shape[0] for p in found] == [12, 12, 12, 14]


def test_missing_weights_are_named(trained):
    with pytest.raises(WeightsError, match=r"no file nowhere\.pth"):
        Predictor.from_config(trained[0], "nowhere.pth")
    with pytest.raises(WeightsError, match="no weights: name the trained"):
        Predictor.from_config(trained[0])


def test_another_model_has_another_identity(trained, tmp_path):
    config, weights, model = trained
    first = Predictor.from_config(config, weights).identity
    assert Predictor.from_config(config, weights).identity == first
    torch.save({"model": model.state_dict(), "more": 0}, tmp_path / "other.pth")
    assert Predictor.from_config(config, tmp_path / "other.pth").identity != first


CUSTOM = """
name: mine
task: semantic
images: images
masks: masks
classes: [{name: sky, color: [1, 2, 3]}, cow]
"""


def test_a_custom_dataset_names_its_classes(tmp_path):
    (tmp_path / "mine.yaml").write_text(CUSTOM)
    cfg = load_config(
        "quickstart/unet_shapes.yaml", ["DATASETS.CUSTOM", str(tmp_path / "mine.yaml")]
    )
    labels = labels_from_config(cfg)
    assert [label.name for label in labels.stuff] == ["sky", "cow"]
    assert labels.stuff[0].color == (1, 2, 3)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 2


def test_classes_are_numbered_where_their_description_is_gone(tmp_path, caplog):
    cfg = load_config(
        "quickstart/unet_shapes.yaml",
        ["DATASETS.CUSTOM", str(tmp_path / "gone.yaml"), "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3"],
    )
    with caplog.at_level(logging.WARNING):
        labels = labels_from_config(cfg)
    assert [label.name for label in labels.stuff] == ["class_0", "class_1", "class_2"]
    assert "gone.yaml" in caplog.text


def test_classes_are_numbered_where_the_dataset_has_another_number(caplog):
    cfg = load_config("quickstart/unet_shapes.yaml", ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "2"])
    assert labels_from_config(cfg).stuff[1].name == "class_1"
    assert "8 stuff classes, the model 2" in caplog.text


def test_instances_have_the_ids_of_the_dataset():
    cfg = load_config("shapes/mask_rcnn_r18_fpn.yaml")
    labels = labels_from_config(cfg)
    assert [(label.name, label.category_id) for label in labels.things][:2] == [
        ("disc", 1), ("square", 2),
    ]  # fmt: skip
    assert labels.stuff == ()


def test_panoptic_classes_know_which_are_things():
    cfg = load_config(
        "shapes/mask_rcnn_r18_fpn.yaml",
        ["MODEL.META_ARCHITECTURE", "PanopticFPN", "DATASETS.TRAIN", "('shapes_panoptic_train',)",
         "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "8"],
    )  # fmt: skip
    labels = labels_from_config(cfg)
    assert [label.name for label in labels.stuff if not label.is_thing] == ["stripes", "speckle"]
    assert len(labels.things) == 6
    assert [label.category_id for label in labels.stuff] == list(range(1, 9))
    assert len(labels.all) == 8


def test_things_may_be_numbered_among_all_classes(caplog):
    cfg = load_config("cityscapes/panoptic_fpn_r50.yaml")
    labels = labels_from_config(cfg)
    assert not caplog.records
    assert (labels.of_instance(11).name, labels.of_instance(11).category_id) == ("person", 24)
    assert labels.of_segment({"isthing": True, "category_id": 13}).name == "car"
    assert labels.of_segment({"isthing": False, "category_id": 0}).name == "road"
    assert [label.name for label in labels.things][:3] == ["person", "rider", "car"]
    assert len(labels.all) == 19
    assert [label.name for label in labels.all if label.is_thing] == [
        label.name for label in labels.things
    ]


def test_detectron2s_own_panoptic_system_numbers_things_by_themselves():
    cfg = load_config(
        "shapes/panoptic_fcn.yaml",
        ["MODEL.META_ARCHITECTURE", "PanopticFPN", "MODEL.PANOPTIC_FPN.THING_IDS", "[2, 3]"],
    )
    labels = labels_from_config(cfg)
    assert not labels.things_in_stuff
    assert labels.of_instance(0).name == "disc"


@pytest.mark.parametrize(("system", "things", "stuff"), [("FCN", 0, 19), ("MaskRCNNFPN", 8, 0)])
def test_systems_of_one_task_have_no_things_among_the_stuff(system, things, stuff):
    cfg = load_config("cityscapes/panoptic_fpn_r50.yaml", ["MODEL.META_ARCHITECTURE", system])
    labels = labels_from_config(cfg)
    assert not labels.things_in_stuff
    assert (len(labels.things), len(labels.stuff)) == (things, stuff)


class Scores(torch.nn.Module):
    """Many channels to three scores, as another library's head has them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = torch.nn.Conv2d(3, 64, 3, padding=1), torch.nn.Conv2d(64, 3, 1)

    def forward(self, batch):
        self.inside = self.body(torch.stack([item["image"] for item in batch]) / 255)
        return [{"sem_seg": scores} for scores in self.head(self.inside)]


def test_bfloat16_keeps_scores_in_float32():
    """Of any system: a 1x1 convolution to a few scores is not safe in it (see ScoreConv2d)."""
    pictures = [predictor(Scores()).preparation.from_array(stripes())]
    (expected,) = predictor(Scores()).outputs(pictures)
    model = Scores()
    (found,) = predictor(model, precision="bfloat16").outputs(pictures)
    assert type(model.head) is ScoreConv2d
    assert model.inside.dtype == torch.bfloat16
    assert found["sem_seg"].dtype == torch.float32
    assert not torch.equal(found["sem_seg"], expected["sem_seg"])
    torch.testing.assert_close(found["sem_seg"], expected["sem_seg"], rtol=0, atol=0.02)
    with pytest.raises(PredictionError, match="precision 'int8' is not one of float32, bfloat16"):
        predictor(Scores(), precision="int8")
