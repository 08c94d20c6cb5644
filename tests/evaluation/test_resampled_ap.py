"""AP of resampled images against pycocotools on the data set rebuilt with repeated images."""

from __future__ import annotations

import copy

from seg_plugins.evaluation import InstanceEvaluator
from seg_plugins.evaluation.average_precision import RECALL_STEPS
from seg_plugins.evaluation.bootstrap import read_statistics
from seg_plugins.evaluation.bootstrap.resampled_ap import resampled_ap
from seg_plugins.evaluation.bootstrap.resampling import resamples
from seg_plugins.evaluation.coco_matches import Matches, flag_bits

import numpy as np
import pytest
from coco_samples import as_coco_results, make_coco, pycocotools_evaluation, run
from test_coco_engine import awkward


def rebuilt(content, results, drawn):
    """The data set with each image as often as it was drawn, under new ids in the same order."""
    new = {**content, "images": [], "annotations": []}
    new_results = []
    for image in sorted(content["images"], key=lambda image: image["id"]):
        for _ in range(int(drawn[image["id"]])):
            number = len(new["images"]) + 1
            new["images"].append({**image, "id": number})
            for annotation in content["annotations"]:
                if annotation["image_id"] == image["id"]:
                    identity = {"id": len(new["annotations"]) + 1, "image_id": number}
                    new["annotations"].append({**copy.deepcopy(annotation), **identity})
            for result in results:
                if result["image_id"] == image["id"]:
                    new_results.append({**copy.deepcopy(result), "image_id": number})
    return new, new_results


def check(content, predictions, name, folder, samples, seed):
    limit = max(100, seed % 2 * 300)
    evaluator = InstanceEvaluator(name, folder, max_dets_per_image=limit)
    run(evaluator, content, predictions)
    statistics = read_statistics(folder / "instances_results.json")
    (weights,) = resamples(len(content["images"]), samples, seed, 1)
    figures = statistics.figures(weights)
    ids = sorted(image["id"] for image in content["images"])
    results = as_coco_results(content, predictions)
    kinds = ["bbox"] + ["segm"] * bool(content["annotations"])
    for column in range(samples):
        drawn = dict(zip(ids, weights[:, column], strict=True))
        new, found = rebuilt(content, results, drawn)
        for kind in kinds:
            official = pycocotools_evaluation(new, found, kind, (1, 10, limit)).eval["precision"]
            for metric, steps in (("AP", slice(None)), ("AP50", [0]), ("AP75", [5])):
                values = official[steps, :, :, 0, -1]
                expected = 100 * np.mean(values[values > -1]) if (values > -1).any() else np.nan
                ours = figures[f"{kind}/{metric}"][column]
                np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-10, equal_nan=True)


@pytest.mark.parametrize("seed", range(4))
def test_as_pycocotools_on_the_rebuilt_data_set(coco_dataset, tmp_path, seed):
    content, predictions = make_coco(seed, size=60)  # many ties within and between images
    check(content, predictions, coco_dataset(content), tmp_path, 5, seed)


@pytest.mark.parametrize("seed", range(12))
def test_as_pycocotools_on_awkward_sets(coco_dataset, tmp_path, seed):
    content, predictions = awkward(seed)
    for annotation in content["annotations"]:
        annotation["id"] += 1
    check(content, predictions, coco_dataset(content), tmp_path, 3, seed)


@pytest.mark.parametrize("wanted", [1, 3, 20, 50, 100, 200, 300, 700])
def test_recall_is_rounded_as_pycocotools_rounds_it(wanted):
    """All hits but for mistakes at every tenth place: precision falls, each step counts."""
    found = np.arange(wanted + wanted // 10)
    hit = np.broadcast_to(found % 11 != 10, (10, len(found)))
    hits = np.cumsum(hit[0])
    precision = hits / (found + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    first = np.searchsorted(hits / wanted, RECALL_STEPS, side="left")
    expected = np.mean(np.append(best, 0)[np.minimum(first, len(best))])
    zeros = np.zeros(len(found), np.int64)
    matches = Matches.sorted(zeros, zeros, -found.astype(float), flag_bits(hit), flag_bits(~hit))
    ones = np.ones((1, 1))
    ap = resampled_ap(matches, ones * wanted, ones)
    np.testing.assert_allclose(ap, expected, rtol=0, atol=1e-14)
