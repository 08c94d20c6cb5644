"""TIDE's kinds and gains on scenes whose figures are worked out by hand."""

from __future__ import annotations

from seg_plugins.evaluation.explain.tide import KINDS, mistake_kinds, tide

import hotcoco
import numpy as np
import pytest
from detection_tables import dataset_of, table_of

# An object of class a at the left, one of class b at the right.
A, B = [0, 0, 20, 20], [60, 0, 20, 20]


@pytest.fixture
def scene(tmp_path):
    def make(objects, detections, images=1):
        return table_of(dataset_of(objects, ["a", "b"], tmp_path, images), detections)[0]

    return make


def kind_of(table):
    return [KINDS[k] if k >= 0 else "" for k in mistake_kinds(table)]


def test_every_kind_is_told_from_the_others(scene):
    detections = [
        (0, 0, 0.9, A),  # right
        (0, 0, 0.8, [0, 0, 20, 19]),  # the same object again
        (0, 0, 0.7, [10, 0, 20, 20]),  # IoU 200 / 600
        (0, 0, 0.6, B),  # b's place
        (0, 0, 0.5, [70, 0, 20, 20]),  # of another class and IoU 1/3
        (0, 0, 0.4, [0, 60, 20, 20]),
        (0, 0, 0.3, [18.5, 0, 20, 20]),  # IoU 30 / 770: less than 0.1
    ]
    table = scene([(0, 0, A), (0, 1, B)], detections)
    expected = ["", "duplicate", "localisation", "classification", "both", *2 * ["background"]]
    assert kind_of(table) == expected
    # b would be found by the detection of the wrong class.
    assert tide(table)["count"]["missed"] == 0


def test_an_overlap_of_exactly_a_half_is_found_and_then_a_duplicate(scene):
    half = [0, 0, 20, 10]  # IoU 0.5
    table = scene([(0, 0, A)], [(0, 0, 0.9, half), (0, 0, 0.8, half)])
    assert kind_of(table) == ["", "duplicate"]


def test_gains_by_hand(scene):
    """Two objects of class a; a surer detection on the background, then one of the objects.

    Precision is 1/2 up to recall 1/2, which 51 of the 101 recall steps reach.
    """
    far = [60, 60, 20, 20]
    table = scene([(0, 0, A), (0, 0, B)], [(0, 0, 0.9, far), (0, 0, 0.8, A)])
    found = tide(table)
    base = 100 * 51 * 0.5 / 101
    assert found["AP50"] == pytest.approx(base)
    assert found["gain"]["background"] == pytest.approx(100 * 51 / 101 - base)
    assert found["gain"]["missed"] == pytest.approx(50 - base)  # one object, precision 1/2
    others = ("classification", "localisation", "both", "duplicate")
    assert [found["gain"][kind] for kind in others] == [0, 0, 0, 0]
    assert found["count"] == {**dict.fromkeys(KINDS, 0), "background": 1, "missed": 1}


def test_only_the_surest_of_an_objects_corrections_finds_it(scene):
    """b's object has two detections of class a: corrected, one finds it, the other is removed."""
    table = scene([(0, 0, A), (0, 1, B)], [(0, 0, 0.9, A), (0, 0, 0.8, B), (0, 0, 0.7, B)])
    found = tide(table)
    assert found["AP50"] == pytest.approx(50)  # a: 100, b: 0
    assert found["gain"]["classification"] == pytest.approx(50)
    assert found["count"] == {**dict.fromkeys(KINDS, 0), "classification": 2}


def test_a_class_without_objects_left_leaves_the_mean(scene):
    table = scene([(0, 0, A), (0, 1, B)], [(0, 0, 0.9, A)])
    assert tide(table)["gain"]["missed"] == pytest.approx(50)


def test_a_crowd_is_no_object_and_excuses_its_detections(scene):
    """hotcoco counts overlap with a crowd as a badly placed detection; by the paper it is none."""
    objects = [(0, 0, A), (0, 0, [50, 50, 40, 40], "crowd")]
    inside, beside = [50, 50, 10, 10], [25, 50, 40, 40]  # 0.23 IoU, 3/8 in the crowd
    table = scene(objects, [(0, 0, 0.9, A), (0, 0, 0.8, inside), (0, 0, 0.7, beside)])
    assert kind_of(table) == ["", "", "background"]
    assert table.counts.tolist() == [True, False, True]
    assert tide(table)["count"]["missed"] == 0


def test_without_objects_there_is_nothing_to_gain(scene):
    found = tide(scene([], [(0, 0, 0.9, A)]))
    assert found["AP50"] is None
    assert set(found["gain"].values()) == {None}
    assert tide(scene([(0, 0, A)], []))["gain"]["missed"] is None


def random_scene(seed):
    """Without crowds and ties, where hotcoco's own figures follow the paper."""
    rng = np.random.default_rng(seed)
    objects, detections = [], []
    for image in range(12):
        for _ in range(rng.integers(0, 6)):
            box = [*rng.uniform(0, 60, 2), *rng.uniform(10, 40, 2)]
            k = int(rng.integers(2))
            objects.append((image, k, box))
            for _ in range(rng.integers(0, 4)):
                moved = np.array(box) + rng.normal(0, rng.choice([0.5, 3, 12]), 4)
                moved[2:] = np.maximum(moved[2:], 2)
                found = k if rng.random() < 0.7 else 1 - k
                detections.append((image, found, float(rng.random()), moved.tolist()))
        box = [*rng.uniform(0, 60, 2), *rng.uniform(10, 40, 2)]
        detections.append((image, int(rng.integers(2)), float(rng.random()), box))
    return objects, detections


@pytest.mark.parametrize("seed", range(5))
def test_equals_hotcoco_where_there_is_no_crowd(seed, tmp_path):
    objects, detections = random_scene(seed)
    dataset = dataset_of(objects, ["a", "b"], tmp_path, 12)
    table, truth, engine = table_of(dataset, detections)
    ours = tide(table)
    assert ours["AP50"] == pytest.approx(
        100 * engine.curves("bbox").average_precision(threshold=0.5)
    )
    rows = np.array([[i + 1, *box, score, k + 1] for i, k, score, box in detections])
    known = truth.engine_dataset()
    run = hotcoco.COCOeval(known, known.load_res(rows), "bbox")
    run.evaluate()
    theirs = run.tide_errors()
    names = dict(zip(KINDS, ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"), strict=True))
    assert ours["count"] == {kind: theirs["counts"][name] for kind, name in names.items()}
    for kind, name in names.items():
        assert ours["gain"][kind] == pytest.approx(100 * theirs["delta_ap"][name], abs=1e-9), kind
