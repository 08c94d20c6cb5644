"""Cityscapes evaluators against cityscapesscripts on the same files."""

from __future__ import annotations

from seg_plugins.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemanticEvaluator,
    EvaluationError,
    score_files,
)
from seg_plugins.evaluation.cityscapes_files import EVALUATED, IGNORE, train_id_of_id
from seg_plugins.evaluation.cityscapes_official import (
    official_instance_scores,
    official_semantic_scores,
)
from seg_plugins.ops.run_length import RunLengthMasks

import numpy as np
import pytest
import torch
from cityscapesscripts.helpers.labels import labels as all_labels
from detectron2.data import MetadataCatalog
from detectron2.structures import Instances
from PIL import Image

THINGS = [label.name for label in EVALUATED if label.hasInstances]
SHAPE = (48, 96)


def random_truth(rng):
    """An instanceIds image: stuff, groups, instances of all sizes, ignored labels."""
    ids = [label.id for label in all_labels if label.id >= 0]
    coarse = rng.choice(ids, (SHAPE[0] // 8, SHAPE[1] // 8))
    truth = np.kron(coarse, np.ones((8, 8), int))
    for number in range(14):
        label = rng.choice([24, 25, 26, 26, 27, 28, 29, 31, 33])
        y, x = rng.integers(SHAPE[0]), rng.integers(SHAPE[1])
        height, width = rng.integers(2, 22, 2)
        truth[y : y + height, x : x + width] = label * 1000 + number if number % 5 else label
    return truth.astype(np.uint16)


@pytest.fixture
def cityscapes(tmp_path):
    """Three frames in two cities; gives the dataset's name, the folder and the truths by frame."""
    rng = np.random.default_rng(0)
    truths = {}
    for frame in ("aachen_000000_000019", "aachen_000001_000019", "bochum_000000_000885"):
        folder = tmp_path / "gtFine" / "val" / frame.split("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        truth = random_truth(rng)
        ids = np.where(truth >= 1000, truth // 1000, truth).astype(np.uint8)
        Image.fromarray(truth).save(folder / f"{frame}_gtFine_instanceIds.png")
        Image.fromarray(ids).save(folder / f"{frame}_gtFine_labelIds.png")
        truths[frame] = truth
    name = f"cityscapes_test_{tmp_path.name}"
    MetadataCatalog.get(name).set(gt_dir=str(tmp_path / "gtFine" / "val"), thing_classes=THINGS)
    yield name, tmp_path / "gtFine" / "val", truths
    MetadataCatalog.remove(name)


def inputs_of(frame):
    return [{"file_name": f"somewhere/{frame}_leftImg8bit.png"}]


def train_ids(truth):
    return train_id_of_id()[np.where(truth >= 1000, truth // 1000, truth)]


def semantic_predictions(truths, only=None):
    rng = np.random.default_rng(1)
    for frame, truth in truths.items():
        labels = train_ids(truth)
        wrong = (rng.random(labels.shape) < 0.3) | (labels == IGNORE)
        labels = np.where(wrong, rng.integers(0, 19, labels.shape), labels)
        labels = labels if only is None else np.full_like(labels, only)
        scores = torch.zeros(19, *labels.shape)
        yield frame, scores.scatter_(0, torch.from_numpy(labels)[None].long(), 1.0)


@pytest.mark.parametrize("only", [None, 13])
def test_pixel_scores_equal_the_official_ones(cityscapes, tmp_path, only):
    name, gt_dir, truths = cityscapes
    evaluator = CityscapesSemanticEvaluator(name, tmp_path, save_predictions=True)
    for frame, scores in semantic_predictions(truths, only):
        evaluator.process(inputs_of(frame), [{"sem_seg": scores}])
    found = evaluator.evaluate()["sem_seg"]
    expected = official_semantic_scores(tmp_path / "cityscapes_sem_seg", gt_dir)
    for ours, theirs in (
        ("IoU", "averageScoreClasses"),
        ("iIoU", "averageScoreInstClasses"),
        ("IoU_sup", "averageScoreCategories"),
        ("iIoU_sup", "averageScoreInstCategories"),
    ):
        assert found[ours] == pytest.approx(100 * expected[theirs], rel=1e-12), ours
    for label in EVALUATED:
        theirs = 100 * expected["classScores"][label.name]
        assert found[f"IoU-{label.name}"] == pytest.approx(theirs, nan_ok=True)
    for name in THINGS:
        theirs = 100 * expected["classInstScores"][name]
        assert found[f"iIoU-{name}"] == pytest.approx(theirs, rel=1e-12, nan_ok=True)
    assert found["mIoU"] == pytest.approx(found["IoU"])


def test_numpy_is_left_as_it_is(cityscapes, tmp_path):
    had = hasattr(np, "in1d")
    test_pixel_scores_equal_the_official_ones(cityscapes, tmp_path, None)
    assert hasattr(np, "in1d") == had
    assert not (tmp_path / "matches.json").exists()


def instance_predictions(truths, seed=2):
    """Shifted, doubled, spurious, empty and mislabelled masks, with ties of the score."""
    rng = np.random.default_rng(seed)
    for frame, truth in truths.items():
        masks, classes = [np.zeros(SHAPE, bool)], [2]
        for value in np.unique(truth):
            label = next(x for x in all_labels if x.id == (value // 1000 or value))
            if label.name not in THINGS:
                continue
            for _ in range(rng.integers(0, 3)):
                shift = rng.integers(-1, 2, 2)
                masks.append(np.roll(truth == value, shift, axis=(0, 1)))
                wrong = rng.random() < 0.15
                classes.append(rng.integers(8) if wrong else THINGS.index(label.name))
        for _ in range(4):
            masks.append(np.zeros(SHAPE, bool))
            masks[-1][5:20, rng.integers(60) :][:, :20] = True
            classes.append(rng.integers(8))
        instances = Instances(SHAPE)
        instances.pred_masks = torch.from_numpy(np.array(masks))
        instances.pred_classes = torch.tensor([int(k) for k in classes])
        instances.scores = torch.from_numpy(np.float32(rng.integers(1, 6, len(masks)) / 5))
        yield frame, instances


@pytest.mark.parametrize("seed", range(4))
def test_instance_scores_equal_the_official_ones(cityscapes, tmp_path, seed):
    name, gt_dir, truths = cityscapes
    evaluator = CityscapesInstanceEvaluator(name, tmp_path, save_predictions=True)
    for frame, instances in instance_predictions(truths, seed):
        evaluator.process(inputs_of(frame), [{"instances": instances}])
    found = evaluator.evaluate()["segm"]
    expected = official_instance_scores(tmp_path / "cityscapes_instances", gt_dir)
    assert found["AP"] == pytest.approx(100 * expected["allAp"], rel=1e-12)
    assert found["AP50"] == pytest.approx(100 * expected["allAp50%"], rel=1e-12)
    assert 0 < found["AP"] < found["AP50"] < 100
    for label in THINGS:
        theirs = expected["classes"][label]
        assert found[f"AP-{label}"] == pytest.approx(100 * theirs["ap"], rel=1e-12, nan_ok=True)
        assert found[f"AP50-{label}"] == pytest.approx(100 * theirs["ap50%"], nan_ok=True)


def test_run_length_masks_give_the_same(cityscapes):
    name, _, truths = cityscapes
    results = []
    for packed in (False, True):
        evaluator = CityscapesInstanceEvaluator(name)
        for frame, instances in instance_predictions(truths):
            if packed:
                instances.pred_masks = RunLengthMasks.from_bitmasks(instances.pred_masks)
            evaluator.process(inputs_of(frame), [{"instances": instances}])
        results.append(evaluator.evaluate())
    np.testing.assert_equal(*results)


def test_no_detections_score_zero(cityscapes):
    name, _, truths = cityscapes
    evaluator = CityscapesInstanceEvaluator(name)
    for frame in truths:
        empty = Instances(SHAPE)
        empty.scores = torch.zeros(0)
        empty.pred_classes = torch.zeros(0, dtype=torch.long)
        evaluator.process(inputs_of(frame), [{"instances": empty}])
    assert evaluator.evaluate()["segm"]["AP"] == 0


def test_wrong_input_names_the_frame(cityscapes):
    name, _, truths = cityscapes
    evaluator = CityscapesSemanticEvaluator(name)
    frame = next(iter(truths))
    with pytest.raises(EvaluationError, match=f"{frame}: the prediction is 4x4"):
        evaluator.process(inputs_of(frame), [{"sem_seg": torch.zeros(19, 4, 4)}])
    with pytest.raises(EvaluationError, match="ulm_000000_000019"):
        evaluator.process(inputs_of("ulm_000000_000019"), [{"sem_seg": torch.zeros(19, 4, 4)}])
    with pytest.raises(EvaluationError, match="not named as Cityscapes does"):
        evaluator.process([{"file_name": "photo.jpg"}], [{"sem_seg": torch.zeros(19, 4, 4)}])
    vars(MetadataCatalog.get(name))["gt_dir"] = "nowhere"
    with pytest.raises(EvaluationError, match=r"No .*labelIds\.png in the city folders"):
        CityscapesSemanticEvaluator(name)


# ------------------------------------------------------------------- result folders, scored again


@pytest.fixture
def result_folders(cityscapes, tmp_path):
    """What both evaluators write, the dataset as one of the two tasks, and their figures."""
    name, _, truths = cityscapes
    metadata = MetadataCatalog.get(name)
    metadata.evaluator_type = ["cityscapes_sem_seg", "cityscapes_instance"]
    semantic = CityscapesSemanticEvaluator(name, tmp_path / "run", save_predictions=True)
    instance = CityscapesInstanceEvaluator(name, tmp_path / "run", save_predictions=True)
    for frame, scores in semantic_predictions(truths):
        semantic.process(inputs_of(frame), [{"sem_seg": scores}])
    for frame, instances in instance_predictions(truths):
        instance.process(inputs_of(frame), [{"instances": instances}])
    return name, tmp_path / "run", {**semantic.evaluate(), **instance.evaluate()}


def test_result_folders_score_as_what_they_were_written_from(result_folders, tmp_path):
    name, folder, expected = result_folders
    np.testing.assert_equal(score_files(name, folder), expected)
    for part, task in (("cityscapes_sem_seg", "sem_seg"), ("cityscapes_instances", "segm")):
        np.testing.assert_equal(score_files(name, folder / part), {task: expected[task]})
        (folder / part).rename(tmp_path / task)  # a name that tells nothing
        np.testing.assert_equal(score_files(name, tmp_path / task), {task: expected[task]})


def test_wrong_result_folders_are_named(result_folders):
    name, folder, _ = result_folders
    images, lists = folder / "cityscapes_sem_seg", folder / "cityscapes_instances"
    image = images / "bochum_000000_000885_pred.png"
    file = lists / "bochum_000000_000885_pred.txt"
    lines = file.read_text().splitlines()
    mask, label, score = lines[0].split()
    for line, message in (
        (f"{mask} {label}", "line 1: .* should be the mask's file, label id and score"),
        (f"{mask} 7 {score}", r"line 1: 7 is none of the label ids \[24, 25"),
        (f"{mask} {label} nan", "line 1: the score is NaN"),
        (f"gone.png {label} {score}", "gone.png: no such file"),
    ):
        file.write_text("\n".join([line, *lines[1:]]))
        with pytest.raises(EvaluationError, match=message):
            score_files(name, lists)
    file.unlink()
    with pytest.raises(EvaluationError, match=r"for 1 of the 3 images.*\(bochum_000000_000885\)"):
        score_files(name, lists)
    Image.fromarray(np.full(SHAPE, 255, np.uint8)).save(image)
    with pytest.raises(EvaluationError, match=r"885_pred\.png: 255 is no label id"):
        score_files(name, images)
    image.rename(images / "ulm_000000_000885_pred.png")
    with pytest.raises(EvaluationError, match="ulm_000000_000885 is none of the 3 frames"):
        score_files(name, images)
