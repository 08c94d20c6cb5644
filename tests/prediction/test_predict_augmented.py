"""``TEST.AUG`` in the predictor: the same keys as in evaluation, windows, resumed folders."""

from __future__ import annotations

from seg_plugins import load_config
from seg_plugins.config import ConfigError
from seg_plugins.export import load_for_export
from seg_plugins.modeling.test_time.augmentation import with_test_time_augmentation
from seg_plugins.ops.run_length import RunLengthMasks
from seg_plugins.prediction import PredictionError, Predictor

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

OPTS = [
    *("MODEL.DEVICE", "cpu", "MODEL.FPN.OUT_CHANNELS", 32, "MODEL.ROI_BOX_HEAD.FC_DIM", 32),
    *("MODEL.RPN.POST_NMS_TOPK_TEST", 10, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0),
    *("TEST.DETECTIONS_PER_IMAGE", 5, "INPUT.MIN_SIZE_TEST", 64),
]
AUGMENTED = ["TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", (48, 80)]


@pytest.fixture
def trained(tmp_path):
    """A configuration and weights, as a run leaves them."""
    cfg = load_config("shapes/mask_rcnn_r18_fpn.yaml", OPTS)
    torch.manual_seed(0)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "model_final.pth")
    return tmp_path / "config.yaml", tmp_path / "model_final.pth"


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)


def test_the_predictor_augments_as_the_configuration_says(trained, picture):
    predictor = Predictor.from_config(*trained, opts=AUGMENTED, min_score=0.0)
    read = predictor.preparation.from_array(picture, "RGB")
    found = predictor.outputs([read])[0]["instances"]
    assert isinstance(found.pred_masks, RunLengthMasks)

    cfg = load_config(trained[0], AUGMENTED)
    model = build_model(cfg).eval()
    model.load_state_dict(torch.load(trained[1], weights_only=True)["model"])
    sample = {"image": predictor.preparation.tensor(read.pixels), "height": 64, "width": 96}
    with torch.no_grad():
        expected = with_test_time_augmentation(cfg, model)([sample])[0]["instances"]
        plain = model([sample])[0]["instances"]
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(found.scores, expected.scores)
    assert not torch.equal(found.scores, plain.scores)
    assert len(predictor(picture).regions) == len(found)


def test_another_augmentation_is_predicted_anew(trained):
    """What an earlier run left in the folder counts for the same views only."""
    options = ([], AUGMENTED, [*AUGMENTED, "TEST.AUG.FLIP", False])
    found = {Predictor.from_config(*trained, opts=opts).identity for opts in options}
    assert len(found) == 3


def test_windows_take_mirror_images_alone(trained, picture):
    predictor = Predictor.from_config(*trained, opts=AUGMENTED)
    read = predictor.preparation.from_array(picture, "RGB")
    with pytest.raises(PredictionError, match=r'MIN_SIZES "\(0,\)" for mirror images alone'):
        predictor.outputs([read], resize=False)
    opts = ["TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", (0,)]
    predictor = Predictor.from_config(*trained, opts=opts)
    assert len(predictor.outputs([read], resize=False)[0]["instances"]) > 0


def test_wrong_sizes_are_refused(trained):
    with pytest.raises(ConfigError, match=r"TEST\.AUG\.MIN_SIZES"):
        Predictor.from_config(*trained, opts=[*AUGMENTED, "TEST.AUG.MIN_SIZES", ()])


def test_an_export_holds_no_augmentation(trained):
    with pytest.raises(ConfigError, match=r"Add TEST\.AUG\.ENABLED False"):
        load_for_export(str(trained[0]), str(trained[1]), AUGMENTED)
