"""Figures of resampled images by brute force, intervals, and paired comparisons."""

from __future__ import annotations

import itertools
import json
import re

from seg_plugins.evaluation import EvaluationError
from seg_plugins.evaluation.bootstrap import compare, compare_runs, read_statistics
from seg_plugins.evaluation.bootstrap.resampling import centred_interval, resamples
from seg_plugins.evaluation.coco_matches import MatchedImages, Matches
from seg_plugins.evaluation.confusion import semantic_scores
from seg_plugins.evaluation.panoptic_quality import PanopticCounts
from seg_plugins.evaluation.semantic import image_scores, pixels_by_class

import numpy as np
import pytest

CLASSES = ["a", "b", "c", "d"]


def write_semantic(
    folder, confusions, *, names=None, dataset="t_val", root="/data", classes=CLASSES
):
    """A run's inference folder from (I, K + 1, K + 1) confusion matrices."""
    folder = folder / "inference"
    folder.mkdir(parents=True, exist_ok=True)
    names = names or [f"{i:03}.png" for i in range(len(confusions))]
    lines = [
        {"file_name": f"{root}/{name}", "image_id": None, "by_class": pixels_by_class(confusion)}
        | {"score": image_scores(confusion)["score"]}
        for name, confusion in zip(names, confusions, strict=True)
    ]
    (folder / "sem_seg_per_image.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    classes = classes[: confusions.shape[1] - 1]
    scores = semantic_scores(confusions.sum(axis=0), classes)
    content = {"dataset": dataset, "results": {"sem_seg": scores}, "classes": classes}
    (folder / "sem_seg_results.json").write_text(json.dumps(content).replace("NaN", "null"))
    return folder / "sem_seg_results.json"


def random_confusions(seed, images=7):
    """Few pixels: classes are often missing, in some images everything is ignored."""
    rng = np.random.default_rng(seed)
    confusions = rng.integers(0, 4, (images, 5, 5)) * (rng.random((images, 5, 5)) < 0.3)
    confusions[1, :-1] = 0
    return confusions


@pytest.mark.parametrize("seed", range(5))
def test_semantic_figures_of_resamples_are_those_of_the_summed_matrices(tmp_path, seed):
    confusions = random_confusions(seed)
    statistics = read_statistics(write_semantic(tmp_path, confusions))
    (weights,) = resamples(7, 50, seed, 1)
    figures = statistics.figures(weights)
    for column, drawn in enumerate(weights.T):
        expected = semantic_scores(np.tensordot(drawn.astype(int), confusions, 1), CLASSES)
        for name in ("mIoU", "fwIoU", "mACC", "pACC"):
            value = figures[f"sem_seg/{name}"][column]
            np.testing.assert_allclose(value, expected[name], rtol=1e-13, equal_nan=True)


def write_panoptic(folder, images, results):
    folder = folder / "inference"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {"image_id": i, "file_name": None, "by_class": image.by_class()}
        for i, image in enumerate(images)
    ]
    (folder / "panoptic_seg_per_image.jsonl").write_text("\n".join(map(json.dumps, lines)))
    counts = {name: {} for name in CLASSES}
    content = {"dataset": "p", "results": {"panoptic_seg": results}, "counts": counts}
    (folder / "panoptic_seg_results.json").write_text(json.dumps(content))
    return folder / "panoptic_seg_results.json"


def qualities(images):
    total = PanopticCounts(range(len(CLASSES)))
    for image in images:
        total.merge(image)
    values = zip(("PQ", "SQ", "RQ"), total.quality(), strict=True)
    return {name: 100 * float(np.nanmean(value)) for name, value in values}


@pytest.mark.parametrize("seed", range(3))
def test_panoptic_figures_of_resamples_are_those_of_the_images_added_again(tmp_path, seed):
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(6):
        image = PanopticCounts(range(len(CLASSES)))
        ids = rng.integers(0, 5, (12, 12))
        found = np.where(rng.random(ids.shape) < 0.7, ids, rng.integers(0, 5, ids.shape))
        kinds = [
            [{"id": int(i), "category_id": int(i) - 1} for i in np.unique(labels) if i]
            for labels in (ids, found)
        ]
        image.add(ids, kinds[0], found, kinds[1])
        images.append(image)
    statistics = read_statistics(write_panoptic(tmp_path, images, qualities(images)))
    (weights,) = resamples(6, 40, seed, 1)
    figures = statistics.figures(weights)
    for column, drawn in enumerate(weights.T.astype(int)):
        repeated = itertools.chain(*([i] * n for i, n in zip(images, drawn, strict=True)))
        for name, value in qualities(repeated).items():
            assert figures[f"panoptic_seg/{name}"][column] == pytest.approx(value, rel=1e-12)


def test_an_interval_by_hand(tmp_path):
    """Two images, all pixels right or all wrong: a resample has pACC 0, 50, 50 or 100."""
    right, wrong = np.diag([4, 0, 0]), np.zeros((3, 3), int)
    wrong[0, 1] = 4
    file = write_semantic(tmp_path, np.stack([right, wrong]))
    figures, _ = compare({"run": [read_statistics(file)]}, 4000, 0)
    accuracy = next(figure for figure in figures if figure.metric == "sem_seg/pACC")
    assert accuracy.value == 50
    assert (accuracy.low, accuracy.high) == pytest.approx((0, 100), abs=2)
    assert (accuracy.images, accuracy.samples, accuracy.dataset) == (2, 4000, "t_val")
    (weights,) = resamples(2, 4000, 0, 1)
    values = read_statistics(file).figures(weights)["sem_seg/pACC"]
    shares = [np.mean(values == value) for value in (0, 50, 100)]
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.02)


def test_percentiles_by_hand():
    assert centred_interval(100, np.arange(201.0)) == pytest.approx((5, 195))
    assert centred_interval(7, np.arange(201.0)) == pytest.approx((-88, 102))
    assert np.isnan(centred_interval(0, np.zeros(0))).all()


def test_a_paired_comparison_by_hand(tmp_path):
    """B has one pixel of 10 more right in every image, so it is ahead in every resample,

    although images differ by far more than the runs do.
    """
    hits = np.array([1, 3, 5, 7, 8])
    files = {}
    for name, gain in (("a", 0), ("b", 1)):
        confusions = np.zeros((5, 3, 3), int)
        confusions[:, 0, 0], confusions[:, 0, 1] = hits + gain, 10 - hits - gain
        files[name] = [read_statistics(write_semantic(tmp_path / name, confusions))]
    figures, differences = compare(files, 500, 0)
    found = next(d for d in differences if d.metric == "sem_seg/pACC")
    assert (found.better, found.worse, found.share, found.samples) == ("b", "a", 1.0, 500)
    assert [found.value, found.low, found.high] == pytest.approx([10, 10, 10])
    widths = [f.high - f.low for f in figures if f.metric == "sem_seg/pACC"]
    assert min(widths) > 20
    assert str(found) == (
        "sem_seg/pACC on t_val: b better than a in 100.0% of 500 resamples of 5 images, "
        "by 10.00 [10.00, 10.00]"
    )


def test_the_share_is_that_of_the_resamples_with_the_images_that_decide(tmp_path):
    """B wins in the first of three images and loses less in the second: shares by enumeration."""
    gains = np.array([3, -2, 0])
    files = {}
    for name, sign in (("a", 0), ("b", 1)):
        confusions = np.zeros((3, 3, 3), int)
        confusions[:, 0, 0] = 5 + sign * gains
        confusions[:, 0, 1] = 5 - sign * gains
        files[name] = [read_statistics(write_semantic(tmp_path / name, confusions))]
    draws = [sum(gains[i] for i in draw) for draw in itertools.product(range(3), repeat=3)]
    _, differences = compare(files, 8000, 1)
    found = next(d for d in differences if d.metric == "sem_seg/pACC")
    assert found.better == "b"
    assert found.share == pytest.approx(np.mean(np.array(draws) > 0), abs=0.02)


def test_the_same_seed_gives_the_same_draws_in_chunks_of_any_size():
    whole = np.hstack(list(resamples(13, 300, 5, 1)))
    parts = list(resamples(13, 300, 5, 1 << 16))
    assert whole.shape == (13, 300)
    assert len(parts) > 5
    np.testing.assert_array_equal(np.hstack(parts), whole)
    assert (whole.sum(axis=0) == 13).all()
    assert (np.hstack(list(resamples(13, 300, 6, 1))) != whole).any()


def test_lines_in_another_order_and_other_folders_are_the_same_dataset(tmp_path):
    confusions = random_confusions(3)
    one = read_statistics(write_semantic(tmp_path / "one", confusions))
    order = np.array([4, 0, 6, 1, 5, 2, 3])
    names = [f"{i:03}.png" for i in order]
    other = write_semantic(tmp_path / "other", confusions[order], names=names, root="/disk/x")
    other = read_statistics(other)
    assert other.fingerprint == one.fingerprint
    (weights,) = resamples(7, 30, 0, 1)
    for name, values in one.figures(weights).items():
        np.testing.assert_array_equal(other.figures(weights)[name], values)


@pytest.mark.parametrize("change", ["truth", "images", "classes"])
def test_other_images_classes_or_truth_are_refused_with_both_names(tmp_path, change):
    confusions = random_confusions(3)
    write_semantic(tmp_path / "one", confusions)
    if change == "truth":
        confusions[0, 0, 0] += 1
    classes = ["d", "c", "b", "a"] if change == "classes" else CLASSES
    names = [f"{i + 1:03}.png" for i in range(7)] if change == "images" else None
    write_semantic(tmp_path / "other", confusions, names=names, dataset="u_val", classes=classes)
    runs = {"A": [tmp_path / "one"], "B": [tmp_path / "other"]}
    comparison = compare_runs(runs, samples=20)
    (problem,) = comparison.problems
    for part in ("A and B cannot be compared", "'t_val' (7 images)", "'u_val' (7 images)"):
        assert part in problem
    assert not comparison.differences
    assert {(f.run, f.dataset) for f in comparison.figures} == {("A", "t_val"), ("B", "u_val")}


def test_statistics_of_another_evaluation_than_the_results_are_refused(tmp_path):
    file = write_semantic(tmp_path, random_confusions(3))
    content = json.loads(file.read_text())
    content["results"]["sem_seg"]["mIoU"] += 0.01
    file.write_text(json.dumps(content))
    with pytest.raises(EvaluationError, match=r"sem_seg_per_image.jsonl.*different evaluations"):
        read_statistics(file)


def test_damaged_statistics_are_named(tmp_path):
    file = write_semantic(tmp_path, random_confusions(3))
    lines = file.with_name("sem_seg_per_image.jsonl")
    lines.write_text(lines.read_text()[:-20])
    with pytest.raises(EvaluationError, match=re.escape(str(lines))):
        read_statistics(file)
    matches = tmp_path / "inference" / "instances_matches.npz"
    matches.write_bytes(b"no file of NumPy's")
    result = matches.with_name("instances_results.json")
    result.write_text('{"dataset": "t", "results": {}}')
    with pytest.raises(EvaluationError, match=re.escape(str(matches))):
        read_statistics(result)
    assert len(compare_runs({"a": [tmp_path]}, samples=5).problems) == 2


@pytest.mark.parametrize("line", ["3", "[]", '{"by_class": 3}', '{"by_class": [[99, 1, 1, 1]]}'])
def test_a_damaged_line_is_named(tmp_path, line):
    file = write_semantic(tmp_path, random_confusions(3))
    lines = file.with_name("sem_seg_per_image.jsonl")
    first, *others = lines.read_text().splitlines()
    lines.write_text("\n".join([first, line, *others[1:]]) + "\n")
    with pytest.raises(EvaluationError, match=re.escape(str(lines))):
        read_statistics(file)
    lines.write_text("\n".join([line, *others]) + "\n")
    assert compare_runs({"a": [tmp_path]}, samples=5).figures == []


@pytest.mark.parametrize("content", ["[]", "{}", '{"dataset": "t", "classes": []}', "{"])
def test_damaged_results_are_named(tmp_path, content):
    file = write_semantic(tmp_path, random_confusions(3))
    file.write_text(content)
    assert len(compare_runs({"a": [tmp_path]}, samples=5).problems) == 1


def test_a_cut_off_file_of_matches_is_named(tmp_path):
    flags = [np.zeros(2, np.uint16), np.zeros(2, np.uint16)]
    columns = np.zeros(2, np.int64), np.zeros(2, np.int64)
    found = Matches.sorted(*columns, np.array([0.5, 0.5]), *flags)
    path = tmp_path / "instances_matches.npz"
    MatchedImages(["x"], ["a"], *columns, {"bbox": found}).save(path)
    content = path.read_bytes()
    damaged = bytearray(content)
    damaged[len(content) // 3] ^= 255
    for wrong in (content[: len(content) // 2], bytes(damaged)):
        path.write_bytes(wrong)
        with pytest.raises(EvaluationError, match=re.escape(str(path))):
            MatchedImages.load(path)


def test_results_without_statistics_are_told(tmp_path):
    file = write_semantic(tmp_path, random_confusions(3))
    lines = file.with_name("sem_seg_per_image.jsonl")
    lines.write_text('{"file_name": "a", "score": 1.0}\n')  # of Cityscapes' evaluator
    assert compare_runs({"a": [tmp_path]}, samples=5).without == [file]


def test_several_seeds_are_one_run_with_their_mean(tmp_path):
    confusions = [random_confusions(3), random_confusions(3)]
    # The second seed: the first two classes of the prediction in each other's place.
    confusions[1] = confusions[1][:, :, [1, 0, 2, 3, 4]]
    seeds = [
        read_statistics(write_semantic(tmp_path / str(i), found))
        for i, found in enumerate(confusions)
    ]
    figures, _ = compare({"run": seeds}, 10, 0)
    own = [s.figures(np.ones((7, 1)))["sem_seg/mIoU"][0] for s in seeds]
    assert own[0] != own[1]
    assert figures[0].value == pytest.approx(np.mean(own))


def test_matches_come_back_as_they_were_written(tmp_path):
    columns = [np.array(c) for c in ([0, 2], [1, 1])]
    flags = [np.array(c, np.uint16) for c in ([1023, 0], [0, 1023])]
    matches = Matches.sorted(columns[0], columns[1], np.array([0.5, 0.5]), *flags)
    truth = np.array([0], np.int32)
    written = MatchedImages(["x", "ÿ", "3"], ["a", "b"], truth, truth + 1, {"segm": matches})
    written.save(tmp_path / "new" / "m.npz")
    read = MatchedImages.load(tmp_path / "new" / "m.npz")
    assert (read.images, read.classes, list(read.kinds)) == (written.images, ["a", "b"], ["segm"])
    for name, column in vars(matches).items():
        np.testing.assert_array_equal(getattr(read.kinds["segm"], name), column)
    assert [*read.truth_image, *read.truth_category] == [0, 1]


@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_say(tmp_path):
    """400 test sets of 60 images from a population whose mIoU is known: 95% cover it."""
    rng = np.random.default_rng(0)
    covered = 0
    # A class's pixels hit in an image are Binomial(n, p), p by image; mIoU of the population is
    # that of the expected counts.
    share, level = np.array([0.9, 0.6]), 12.0
    expected = np.zeros((3, 3))
    expected[[0, 1], [0, 1]], expected[[0, 1], [1, 0]] = 50 * share, 50 * (1 - share)
    truth = semantic_scores(expected, ["a", "b"])["mIoU"]
    for trial in range(400):
        hit = rng.binomial(50, rng.beta(level * share, level * (1 - share), (60, 2)))
        confusions = np.zeros((60, 3, 3), int)
        confusions[:, [0, 1], [0, 1]], confusions[:, [0, 1], [1, 0]] = hit, 50 - hit
        statistics = read_statistics(write_semantic(tmp_path, confusions))
        (figure, *_), _ = compare({"run": [statistics]}, 500, trial)
        covered += figure.low <= truth <= figure.high
    # Three standard errors of 400 draws, and the percentile interval's own lack at 60 images.
    assert 0.91 <= covered / 400 <= 0.985, covered
