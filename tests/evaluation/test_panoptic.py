"""PanopticEvaluator: hand-made numbers, the reference implementation, the COCO sample."""

from __future__ import annotations

import json
from pathlib import Path

from seg_plugins.data import DatasetError
from seg_plugins.evaluation import EvaluationError, PanopticEvaluator, score_files
from seg_plugins.evaluation.panoptic_quality import PanopticCounts
from seg_plugins.io.panoptic import read_segment_colors, write_segment_ids

import numpy as np
import pytest
import torch
from cityscapesscripts.evaluation import evalPanopticSemanticLabeling as reference
from detectron2.data import MetadataCatalog
from PIL import Image

CATEGORIES = [
    {"id": 7, "name": "person", "isthing": 1},
    {"id": 8, "name": "car", "isthing": 1},
    {"id": 21, "name": "sky", "isthing": 0},
]


@pytest.fixture
def panoptic_dataset(tmp_path):
    """Writes id maps and segments as a COCO panoptic dataset; gives its name."""
    names = []

    def register(images, categories=CATEGORIES):
        name = f"panoptic_test_{tmp_path.name}_{len(names)}"
        root = tmp_path / name
        annotations = []
        for i, (ids, segments) in enumerate(images):
            write_segment_ids(root / f"{i}.png", ids)
            annotations.append({"image_id": i, "file_name": f"{i}.png", "segments_info": segments})
        file = root / "panoptic.json"
        content = {"images": [], "categories": categories, "annotations": annotations}
        file.write_text(json.dumps(content))
        MetadataCatalog.get(name).set(
            panoptic_root=str(root),
            panoptic_json=str(file),
            label_divisor=1000,
            thing_dataset_id_to_contiguous_id={7: 0, 8: 1},
            stuff_dataset_id_to_contiguous_id={21: 2},
        )
        names.append(name)
        return name

    yield register
    for name in names:
        MetadataCatalog.remove(name)


def segment(id, category, ids, iscrowd=0):
    return {
        "id": id,
        "category_id": category,
        "iscrowd": iscrowd,
        "area": int(np.count_nonzero(ids == id)),
    }


def run(evaluator, predictions):
    evaluator.reset()
    for i, (ids, segments) in enumerate(predictions):
        output = {"panoptic_seg": (torch.from_numpy(ids), segments)}
        evaluator.process([{"image_id": i}], [output])
    return evaluator.evaluate()["panoptic_seg"]


def test_hand_made_quality(panoptic_dataset):
    truth = np.zeros((10, 10), np.int32)
    truth[:4] = 1  # sky, 40
    truth[4:8, :5] = 2  # person, 20
    truth[4:8, 5:] = 3  # person, 20
    truth[8:, :5] = 4  # car crowd, 10; the rest, 10, is void
    segments = [segment(1, 21, truth), segment(2, 7, truth), segment(3, 7, truth)]
    segments.append(segment(4, 8, truth, iscrowd=1))
    found = np.zeros((10, 10), np.int32)
    found[:5] = 11  # sky, 50: IoU 40 / 50
    found[5:8, :5] = 12  # person, 15: IoU 15 / 20
    found[5:8, 5:9] = 13  # car, 12: false positive; person 3 is missed
    found[8:, :4] = 14  # car, 8: inside the crowd, no mistake
    found[8:, 6:] = 15  # person, 8: in void, no mistake
    categories = {11: 21, 12: 7, 13: 8, 14: 8, 15: 7}
    predicted = [{"id": i, "category_id": c} for i, c in categories.items()]
    scores = run(PanopticEvaluator(panoptic_dataset([(truth, segments)])), [(found, predicted)])
    assert scores["PQ-sky"] == pytest.approx(80)
    assert scores["PQ-person"] == pytest.approx(100 * 0.75 / 1.5)
    assert scores["SQ-person"] == pytest.approx(75)
    assert scores["RQ-person"] == pytest.approx(100 / 1.5)
    assert scores["PQ-car"] == scores["SQ-car"] == 0
    assert scores["PQ"] == pytest.approx((80 + 50 + 0) / 3)
    assert scores["PQ_th"] == pytest.approx(25)
    assert scores["PQ_st"] == pytest.approx(80)


def random_image(rng, shape, categories, count):
    """Truth with void and a crowd, and a prediction that mostly agrees."""
    coarse = rng.integers(0, count, (shape[0] // 8 + 1, shape[1] // 8 + 1))
    truth = np.kron(coarse, np.ones((8, 8), int))[: shape[0], : shape[1]].astype(np.int32) * 300
    found = np.roll(truth, rng.integers(0, 4, 2), axis=(0, 1)) * 11
    found[rng.random(shape) < 0.1] = 0
    pick = {i: int(rng.choice(categories)) for i in range(count)}

    def segments(ids, scale, noise):
        result = []
        for value in np.unique(ids[ids > 0]).tolist():
            category = pick[value // scale]
            if rng.random() < noise:
                category = int(rng.choice(categories))
            result.append(segment(value, category, ids, int(noise == 0 and rng.random() < 0.1)))
        return result

    return truth, segments(truth, 300, 0), found, segments(found, 3300, 0.2)


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_reference(seed, tmp_path):
    rng = np.random.default_rng(seed)
    categories = {c["id"]: c for c in CATEGORIES}
    counts, pairs = PanopticCounts(list(categories)), []
    for i, shape in enumerate([(40, 60), (1, 1), (64, 33), (9, 100)]):
        truth, true_segments, found, found_segments = random_image(rng, shape, list(categories), 14)
        counts.add(truth, true_segments, found, found_segments)
        for folder, ids in (("truth", truth), ("found", found)):
            write_segment_ids(tmp_path / folder / f"{i}.png", ids)
        pairs.append(
            tuple(
                {"image_id": i, "file_name": f"{i}.png", "segments_info": segments}
                for segments in (true_segments, found_segments)
            )
        )
    stat = reference.pq_compute_single_core(
        0, pairs, str(tmp_path / "truth"), str(tmp_path / "found"), categories
    )
    expected = reference.average_pq(stat, categories)
    pq, sq, rq = counts.quality()
    for i, category in enumerate(categories):
        assert (counts.tp[i], counts.fp[i], counts.fn[i]) == (
            stat[category].tp,
            stat[category].fp,
            stat[category].fn,
        )
        theirs = expected["per_class"][category]
        np.testing.assert_allclose(
            np.nan_to_num([pq[i], sq[i], rq[i]]),
            [theirs[k] for k in ("pq", "sq", "rq")],
            rtol=1e-12,
        )


def coco_sample(shared_data: Path):
    folder = shared_data / "coco_panoptic_samples"
    content = json.loads((folder / "panoptic_examples.json").read_text())
    annotation = content["annotations"][0]
    ids = read_segment_colors(str(folder / "panoptic_examples" / annotation["file_name"]))
    ids = ids.astype(np.int32) @ np.array([1, 256, 65536], np.int32)
    return content["categories"], annotation["segments_info"], ids


def test_coco_sample_against_itself_is_100(panoptic_dataset, shared_data):
    categories, segments, ids = coco_sample(shared_data)
    evaluator = PanopticEvaluator(panoptic_dataset([(ids, segments)], categories))
    scores = run(evaluator, [(ids, segments)])
    assert {scores[k] for k in ("PQ", "SQ", "RQ", "PQ_th", "PQ_st")} == {100.0}


def test_coco_sample_against_a_perturbed_copy(panoptic_dataset, shared_data):
    """The largest segment loses the left half of its columns; another one is not predicted."""
    categories, segments, ids = coco_sample(shared_data)
    countable = [s for s in segments if not s["iscrowd"]]
    largest = max(countable, key=lambda s: s["area"])
    alone = [
        s for s in countable if [c["category_id"] for c in segments].count(s["category_id"]) == 1
    ]
    missed = next(s for s in alone if s["category_id"] != largest["category_id"])
    assert largest in alone
    found = ids.copy()
    columns = np.flatnonzero((ids == largest["id"]).any(axis=0))
    cut = np.zeros(ids.shape, bool)
    cut[:, columns[: len(columns) // 4]] = True
    found[cut & (ids == largest["id"])] = 0
    found[ids == missed["id"]] = 0
    kept = np.count_nonzero(found == largest["id"])
    predicted = [s for s in segments if s is not missed]
    evaluator = PanopticEvaluator(panoptic_dataset([(ids, segments)], categories))
    scores = run(evaluator, [(found, predicted)])
    names = {c["id"]: c["name"] for c in categories}
    assert 0.5 < kept / largest["area"] < 1
    assert scores[f"PQ-{names[largest['category_id']]}"] == pytest.approx(
        100 * kept / largest["area"]
    )
    assert scores[f"PQ-{names[missed['category_id']]}"] == 0
    seen = len({s["category_id"] for s in countable})
    assert scores["PQ"] == pytest.approx(100 * (seen - 2 + kept / largest["area"]) / seen)


def test_ids_with_a_divisor_and_contiguous_segments(panoptic_dataset):
    truth = np.array([[1, 1, 2, 2, 3, 0]], np.int32)
    segments = [segment(1, 7, truth), segment(2, 7, truth), segment(3, 21, truth)]
    name = panoptic_dataset([(truth, segments)])
    packed = np.array([[1, 1, 2, 2, 2000, -1]], np.int64)
    assert run(PanopticEvaluator(name), [(packed, None)])["PQ"] == 100
    contiguous = [
        {"id": 1, "category_id": 0, "isthing": True},
        {"id": 2, "category_id": 0, "isthing": True},
        {"id": 3, "category_id": 2, "isthing": False},
    ]
    assert run(PanopticEvaluator(name), [(truth, contiguous)])["PQ"] == 100


def test_nothing_predicted_and_nothing_true(panoptic_dataset):
    truth = np.array([[1, 0]], np.int32)
    name = panoptic_dataset([(truth, [segment(1, 7, truth)]), (truth * 0, [])])
    nothing = np.zeros((1, 2), np.int32), []
    scores = run(PanopticEvaluator(name), [nothing, nothing])
    assert scores["PQ"] == scores["PQ-person"] == 0
    assert np.isnan(scores["PQ_st"])


def test_written_predictions_are_read_by_the_reference(panoptic_dataset, tmp_path):
    rng = np.random.default_rng(0)
    images = [random_image(rng, (40, 50), [7, 8, 21], 9) for _ in range(2)]
    name = panoptic_dataset([(truth, segments) for truth, segments, _, _ in images])
    evaluator = PanopticEvaluator(name, tmp_path / "out", save_predictions=True)
    scores = run(evaluator, [(found, segments) for _, _, found, segments in images])
    metadata = MetadataCatalog.get(name)
    expected = reference.evaluatePanoptic(
        metadata.panoptic_json,
        metadata.panoptic_root,
        str(tmp_path / "out" / "panoptic_predictions.json"),
        str(tmp_path / "out" / "panoptic_predictions"),
        str(tmp_path / "reference.json"),
    )
    for ours, theirs in (("", "All"), ("_th", "Things"), ("_st", "Stuff")):
        for measure in ("PQ", "SQ", "RQ"):
            value = 100 * expected[theirs][measure.lower()]
            assert scores[measure + ours] == pytest.approx(value, rel=1e-12)


def test_wrong_input_names_the_image(panoptic_dataset):
    truth = np.array([[1, 2]], np.int32)
    name = panoptic_dataset([(truth, [segment(1, 7, truth), segment(2, 21, truth)])])
    one, two = {"id": 1, "category_id": 7}, {"id": 2, "category_id": 21}
    for ids, segments, message in (
        (truth[:, :1], [one], "the prediction is 1x1 but the ground truth is 1x2"),
        (truth, [one], "predicted segment 2 is in the map, not in segments_info"),
        (truth, [one, two, {"id": 3, "category_id": 7}], "segment 3 is in segments_info, not"),
        (truth, [one, one, two], "segment 1 is listed twice"),
        (truth, [one, {"id": 2, "category_id": 5}], "segment 2 has the unknown category 5"),
        (truth, [one, {**two, "isthing": True}], "segment 2 has the unknown thing class 21"),
        (truth[0], [one, two], r"shape \(2,\), not \(H, W\)"),
    ):
        with pytest.raises(EvaluationError, match=f"0: .*{message}"):
            run(PanopticEvaluator(name), [(ids, segments)])


def test_a_truth_that_is_no_panoptic_png_is_named(tmp_path):
    (tmp_path / "grey.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"grey\.png: not a readable image"):
        read_segment_colors(str(tmp_path / "grey.png"))
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "grey.png")
    with pytest.raises(DatasetError, match=r"grey\.png: a panoptic label image has three"):
        read_segment_colors(str(tmp_path / "grey.png"))


@pytest.fixture
def panoptic_files(panoptic_dataset, tmp_path):
    """A dataset, COCO's panoptic results of it in a folder, their content, and the figures."""
    rng = np.random.default_rng(3)
    images = [random_image(rng, (40, 50), [7, 8, 21], 9) for _ in range(3)]
    name = panoptic_dataset([(truth, segments) for truth, segments, _, _ in images])
    MetadataCatalog.get(name).evaluator_type = "coco_panoptic_seg"
    evaluator = PanopticEvaluator(name, tmp_path / "run", save_predictions=True)
    scores = run(evaluator, [(found, segments) for _, _, found, segments in images])
    file = tmp_path / "run" / "panoptic_predictions.json"
    return name, file, json.loads(file.read_text()), scores


def test_panoptic_results_score_as_what_they_were_written_from(panoptic_files, tmp_path):
    name, file, content, expected = panoptic_files
    np.testing.assert_equal(score_files(name, file)["panoptic_seg"], expected)
    # As a benchmark's server takes them: the annotations alone, under a name of one's own.
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.json").write_text(json.dumps({"annotations": content["annotations"]}))
    file.with_suffix("").rename(tmp_path / "mine" / "a")
    np.testing.assert_equal(score_files(name, tmp_path / "mine")["panoptic_seg"], expected)
    with pytest.raises(EvaluationError, match=r"no folder panoptic_predictions/ beside it"):
        score_files(name, file)


def test_wrong_panoptic_results_are_named(panoptic_files):
    name, file, content, _ = panoptic_files
    entry, *others = content["annotations"]
    one, *rest = entry["segments_info"]

    def fails(message, annotations):
        file.write_text(json.dumps({"annotations": annotations}))
        with pytest.raises(EvaluationError, match=message):
            score_files(name, file)

    fails(r"for 1 of the 3 images of '.*' \(0\)", others)
    fails("image_id 0 is there 2 times", [entry, entry, *others])
    fails("image_id 9 of 1 results is none of the 3", [{**entry, "image_id": 9}, *others])
    fails(r"result 0 .*gone\.png is not there", [{**entry, "file_name": "gone.png"}, *others])
    fails("result 0 .*leaves the dataset's", [{**entry, "file_name": "../a.png"}, *others])
    for segments, message in (
        ([{**one, "category_id": 5}, *rest], "category_id 5 is none of the 3 of"),
        (rest, f"predicted segment {one['id']} is in the map, not in segments_info"),
        ([one, one, *rest], f"segment {one['id']} is listed twice"),
        ([{"id": one["id"]}, *rest], "a segment should have id and category_id"),
        (None, "segments_info should be a list"),
    ):
        fails(message, [{**entry, "segments_info": segments}, *others])
