"""ISBI 2012 measures against pair counting and hand-made images."""

from __future__ import annotations

from seg_plugins.evaluation import ElectronMicroscopyEvaluator
from seg_plugins.evaluation.rand_measures import agreement, regions
from seg_plugins.ops.homotopic_warp import homotopic_warp

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image


def slow_rand(truth, proposal):
    """Rand split and merge by looking at every ordered pair of foreground pixels."""
    pixels = [
        (t, p if p else -1 - i)  # no region: one of its own
        for i, (t, p) in enumerate(zip(truth.ravel(), proposal.ravel(), strict=True))
        if t
    ]
    same_true = same_found = same_both = 0
    for t1, p1 in pixels:
        for t2, p2 in pixels:
            same_true += t1 == t2
            same_found += p1 == p2
            same_both += t1 == t2 and p1 == p2
    return same_both / same_true, same_both / same_found


@pytest.mark.parametrize("seed", range(4))
def test_rand_equals_pair_counting(seed):
    rng = np.random.default_rng(seed)
    truth, proposal = (rng.integers(0, 4, (9, 11)) for _ in range(2))
    found = agreement(truth, proposal)
    split, merge = slow_rand(truth, proposal)
    assert found.rand_split == pytest.approx(split, rel=1e-12)
    assert found.rand_merge == pytest.approx(merge, rel=1e-12)


def test_information_of_two_halves():
    truth = np.array([[1, 1, 2, 2]])
    merged = agreement(truth, np.ones_like(truth))
    assert merged.variation == pytest.approx(np.log(2))
    assert merged.information_merge == pytest.approx(0)
    crossed = agreement(truth, np.array([[1, 2, 1, 2]]))
    assert crossed.variation == pytest.approx(2 * np.log(2))
    assert crossed.information == pytest.approx(0)
    equal = agreement(truth, truth * 7)
    assert (equal.rand, equal.information, equal.variation) == (1, 1, 0)
    # Unassigned pixels are regions of their own: two of them split region 2.
    alone = agreement(truth, np.array([[1, 1, 0, 0]]))
    assert alone.variation == pytest.approx(0.5 * np.log(2))
    assert agreement(np.zeros((2, 2), int), truth[:, :2].repeat(2, axis=0)) is None


def test_regions_are_4_connected():
    assert regions(np.eye(3)).max() == 3


def test_thinning_leaves_a_membrane_one_pixel_wide_and_both_cells():
    cells = np.ones((11, 15), np.uint8)
    cells[:, 5:10] = 0
    thinned = homotopic_warp(cells, np.ones_like(cells))
    assert regions(thinned).max() == 2
    assert (np.count_nonzero(thinned == 0, axis=1) == 1).all()
    columns = np.argmin(thinned, axis=1)
    assert (np.abs(columns - 7) <= 1).all()  # centred


@pytest.fixture
def slices(tmp_path):
    """Registers true cell maps as an EM dataset; gives its name and the inputs."""
    name = f"em_test_{tmp_path.name}"

    def register(truths):
        records = []
        for i, truth in enumerate(truths):
            Image.fromarray(truth).save(tmp_path / f"{i}.png")
            records.append({"file_name": str(i), "sem_seg_file_name": str(tmp_path / f"{i}.png")})
        DatasetCatalog.register(name, lambda: records)
        MetadataCatalog.get(name).set(stuff_classes=["membrane", "cell"], ignore_label=255)
        return name, [{"file_name": str(i)} for i in range(len(truths))]

    yield register
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def two_cells(gap=0):
    """Two cells beside a membrane two pixels wide, open over `gap` rows."""
    image = np.ones((20, 20), np.uint8)
    image[:, 9:11] = 0
    image[:gap, 9:11] = 1
    return image


def score(slices, truths, probabilities, as_logits=False):
    name, inputs = slices(truths)
    evaluator = ElectronMicroscopyEvaluator(name)
    for given, cell in zip(inputs, probabilities, strict=True):
        cell = torch.as_tensor(np.asarray(cell, np.float32))
        scores = torch.stack([1 - cell, cell])
        scores = scores.clamp(1e-6).log() if as_logits else scores
        evaluator.process([given], [{"sem_seg": scores}])
    return evaluator.evaluate()["em"]


@pytest.mark.parametrize("as_logits", [False, True])
def test_perfect_membranes_have_no_error(slices, as_logits):
    truth = two_cells()
    errors = score(slices, [truth], [truth], as_logits)
    assert errors == pytest.approx(dict.fromkeys(errors, 0.0), abs=1e-12)


def test_a_wider_membrane_is_no_topological_error(slices):
    wide = two_cells()
    wide[:, 8:12] = 0
    errors = score(slices, [two_cells()], [wide])
    assert errors["WarpingError"] == 0
    assert errors["PixelError"] == pytest.approx(40 / 400)
    assert errors["RandErrorThinned"] < errors["RandError"]


def test_a_gap_merges_two_cells(slices):
    errors = score(slices, [two_cells()], [two_cells(gap=1)])
    assert errors["WarpingError"] == pytest.approx(1 / 400)  # one pixel of the gap stays closed
    assert errors["PixelError"] == pytest.approx(2 / 400)
    # Truth: two regions of 180; proposal: one of 360. Split 1, merge 1/2.
    assert errors["RandError"] == pytest.approx(1 - 2 * 0.5 / 1.5)
    assert errors["VariationOfInformation"] == pytest.approx(np.log(2))


def test_the_best_threshold_counts(slices):
    probability = 0.35 + 0.3 * two_cells()
    probability[:2, 9:11] = 0.55  # a faint membrane: closed from 0.6 on
    errors = score(slices, [two_cells()], [probability])
    assert errors["RandError"] == pytest.approx(0)
    assert errors["PixelFError"] == pytest.approx(0)
    assert errors["PixelError"] == pytest.approx(4 / 400)  # at 0.5


@pytest.mark.parametrize(("membrane", "cell"), [(0.05, 0.15), (0.85, 0.95)])
def test_thresholds_reach_from_a_tenth_to_nine_tenths(slices, membrane, cell):
    probability = membrane + (cell - membrane) * two_cells()
    errors = score(slices, [two_cells()], [probability])
    assert errors["PixelFError"] == errors["WarpingError"] == pytest.approx(0)
    assert errors["PixelError"] > 0  # at 0.5


def test_ignored_pixels_do_not_count(slices):
    truth = two_cells()
    noisy = truth.copy()
    noisy[:, 15:] = 0
    truth[:, 15:] = 255
    errors = score(slices, [truth], [noisy])
    assert errors["PixelError"] == errors["WarpingError"] == errors["RandError"] == 0


def test_slices_without_cells(slices):
    errors = score(slices, [np.zeros((6, 6), np.uint8)], [np.zeros((6, 6))])
    assert errors["PixelError"] == errors["WarpingError"] == 0
    assert np.isnan(errors["RandError"])


def test_a_dataset_without_a_cell_class_is_refused(slices):
    name, _ = slices([two_cells()])
    vars(MetadataCatalog.get(name))["stuff_classes"] = ["a", "b"]
    with pytest.raises(ValueError, match="set 'cell_class'"):
        ElectronMicroscopyEvaluator(name)
