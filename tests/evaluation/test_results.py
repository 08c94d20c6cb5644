"""Results as JSON and as a table."""

from __future__ import annotations

import json
import math

from seg_plugins.evaluation import format_results
from seg_plugins.evaluation.results import plain_json, readable_json, write_results

import numpy as np


def test_one_table_for_all_tasks():
    results = {
        "sem_seg": {"mIoU": 51.25, "IoU-car": 2.5, "IoU-traffic light": float("nan"), "ACC-car": 3},
        "bbox": {"AP": 12.0},
    }
    assert format_results(results).splitlines() == [
        "task       mIoU",
        "-------  ------",
        "sem_seg  51.250",
        "",
        "class            IoU    ACC",
        "-------------  -----  -----",
        "car            2.500  3.000",
        "traffic light      -      -",
        "",
        "task      AP",
        "----  ------",
        "bbox  12.000",
    ]


def test_plain_json_is_strict():
    value = {1: np.float32(0.5), "nan": np.nan, "rows": (np.arange(2), [True, np.bool_(False)])}
    text = json.dumps(plain_json(value), allow_nan=False)
    assert json.loads(text) == {"1": 0.5, "nan": None, "rows": [[0, 1], [True, False]]}


def test_lists_stay_on_one_line():
    value = {"scores": {"mIoU": 0.5, "IoU": np.nan}, "confusion": np.eye(2, dtype=int), "none": {}}
    assert readable_json(value).splitlines() == [
        "{",
        ' "scores": {',
        '  "mIoU": 0.5,',
        '  "IoU": null',
        " },",
        ' "confusion": [[1, 0], [0, 1]],',
        ' "none": {}',
        "}",
    ]


def test_what_an_evaluator_has_not_written_is_written_for_it(tmp_path):
    """As Detectron2's own evaluators leave it; a file of ours holds more and stays."""
    ours = json.dumps({"images": {"scored": 4}, "results": {"sem_seg": {"mIoU": 1.0}}})
    (tmp_path / "sem_seg_results.json").write_text(ours)
    (tmp_path / "old_results.json").write_text('{"results": {"ol')
    results = {"sem_seg": {"mIoU": 1.0}, "mine": {"error": np.float32(0.5)}, "count": 3}
    write_results(results, tmp_path, "a_val")
    assert (tmp_path / "sem_seg_results.json").read_text() == ours
    mine = json.loads((tmp_path / "mine_results.json").read_text())
    assert mine == {"dataset": "a_val", "results": {"mine": {"error": 0.5}}}
    assert not (tmp_path / "count_results.json").exists()
    write_results({"mine": {"error": math.nan}}, tmp_path, "a_val")
    mine = json.loads((tmp_path / "mine_results.json").read_text())
    assert mine["results"]["mine"] == {"error": None}
