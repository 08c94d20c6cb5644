"""Exported instance systems, run by each runtime, predict what the systems themselves do."""

from __future__ import annotations

from seg_plugins.export import export_model
from seg_plugins.modeling.test_time.augmentation import with_test_time_augmentation
from seg_plugins.prediction import Predictor
from seg_plugins.prediction.inputs import Preparation
from seg_plugins.prediction.labels import labels_from_config
from seg_plugins.runtime import RUNTIMES, ModelFileError

import numpy as np
import pytest
import torch
from instance_systems import build, config_of

# A mask inside its box, a mask of the image's pixels, an outline.
RLE = ("MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT", "rle", "INPUT.MIN_SIZE_TEST", 0)
NAMES = ("MaskRCNNFPN", "SOLOv2", "PolarMask")


@pytest.fixture(scope="module", params=NAMES)
def pair(request, tmp_path_factory):
    """The predictor of a system, and its file."""
    pytest.importorskip("onnxruntime")
    cfg = config_of(request.param, *RLE)
    model = build(request.param, *RLE).eval()
    path = export_model(cfg, model, "onnx", tmp_path_factory.mktemp("exported")).path
    ours = Predictor(
        model=model, preparation=Preparation(cfg), labels=labels_from_config(cfg), min_score=0
    )
    return ours, path


@pytest.fixture(params=list(RUNTIMES))
def runtime(request):
    """Each runtime that is installed; the others are skipped visibly."""
    pytest.importorskip({"onnx": "onnxruntime"}.get(request.param, request.param))
    return request.param


@pytest.fixture
def theirs(runtime, pair):
    """The file's predictor."""
    return Predictor.from_file(pair[1], runtime=runtime, min_score=0)


def noise(height, width):
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


def test_the_same_instances(pair, theirs):
    compared = 0
    for size in ((128, 128), (75, 101), (97, 64)):
        expected, found = (p(noise(*size)).instances for p in (pair[0], theirs))
        assert len(found) == len(expected)
        torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-3)
        one, two = (i.pred_masks.to_bitmasks().astype(bool) for i in (expected, found))
        # Instances of nearly one score may change places: each is found among the other's.
        for mask, kind in zip(one, expected.pred_classes, strict=True):
            others = two[(found.pred_classes == kind).numpy()]
            assert (mask != others).mean(axis=(1, 2)).min() < 2e-3
            compared += bool(mask.any())
    assert compared, "nothing was found, nothing compared"


# Masks of a view of another size are resized twice on the file's side: scores alone are equal then.
@pytest.mark.parametrize(("sizes", "masks"), [("(0,)", True), ("(0, 90)", False)])
def test_views_vote_as_those_of_the_system(pair, runtime, sizes, masks):
    ours, path = pair
    opts = ["TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", sizes]
    if hasattr(ours.model, "roi_heads"):
        with pytest.raises(ModelFileError, match=r"TEST\.AUG\.ENABLED True: .* config\.yaml"):
            Predictor.from_file(path, runtime=runtime, opts=opts)
        return
    theirs = Predictor.from_file(path, runtime=runtime, opts=opts, min_score=0)
    augmented = with_test_time_augmentation(theirs.model.model.cfg, ours.model)
    ours = Predictor(model=augmented, preparation=ours.preparation, labels=ours.labels, min_score=0)
    expected, found = (p(noise(75, 101)).instances for p in (ours, theirs))
    assert len(found) == len(expected) > 0
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-3)
    if masks:
        one, two = (i.pred_masks.to_bitmasks().astype(bool) for i in (expected, found))
        # Instances of nearly one score may change places.
        assert all((mask != two).mean(axis=(1, 2)).min() < 2e-3 for mask in one)


def test_one_pixel_and_no_detections(pair, theirs):
    expected, found = (predictor(noise(1, 1)).instances for predictor in (pair[0], theirs))
    assert found.image_size == (1, 1)
    assert len(found)
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-3)
    theirs.min_score = 1.1
    prediction = theirs(noise(64, 64))
    assert len(prediction.instances) == 0
    assert not prediction.id_mask().any()
