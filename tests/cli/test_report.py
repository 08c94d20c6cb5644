"""``seg-plugins report``: intervals, comparisons and seeds on the page and in the terminal."""

from __future__ import annotations

import json
import re

from seg_plugins.cli.main import main

import numpy as np
import pytest


@pytest.fixture
def report(tmp_path):
    def call(*arguments):
        main("report", [*map(str, arguments), "--output", str(tmp_path / "page.html")])
        return (tmp_path / "page.html").read_text()

    return call


def write_run(folder, hits, *, dataset="t_val", seed=0):
    """Images of 10 pixels of one class, of which `hits` are right."""
    inference = folder / "inference"
    inference.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"SEED: {seed}\nNAME: {folder.parent.name}\n")
    lines = [
        json.dumps({"file_name": f"{dataset}/{i}.png", "by_class": [[0, 10, 10, int(hit)]]})
        for i, hit in enumerate(hits)
    ]
    (inference / "sem_seg_per_image.jsonl").write_text("\n".join(lines))
    hit, all_pixels = int(np.sum(hits)), 10 * len(hits)
    iou, accuracy = 100 * hit / (2 * all_pixels - hit), 100 * hit / all_pixels
    figures = {"mIoU": iou, "fwIoU": iou, "mACC": accuracy, "pACC": accuracy}
    content = {"dataset": dataset, "results": {"sem_seg": figures}, "classes": ["x"]}
    (inference / "sem_seg_results.json").write_text(json.dumps(content))
    return folder


def test_runs_and_seeds_are_compared(report, tmp_path, capsys):
    one = [write_run(tmp_path / f"a/seed_{i}", [3 + i, 5, 9], seed=i) for i in (1, 2)]
    page = report(*one, write_run(tmp_path / "b/run", [5, 6, 9]), "--resamples", "300")
    printed = capsys.readouterr().out
    # 55 of 90 against 20 of 30 pixels; each image is as good or better.
    assert "sem_seg/pACC on t_val: a (2 seeds) 61.67 [" in printed
    found = re.search(r"pACC on t_val: run better than a \(2 seeds\) in (\S+)% of 300", printed)
    # All but the resamples with the third image alone, 1 of 27.
    assert float(found[1]) == pytest.approx(100 * 26 / 27, abs=3)
    for text in ("95% intervals", "Differences on the same resamples", "a (2 seeds)", "61.67"):
        assert text in page
    again = report(*one, tmp_path / "b/run", "--resamples", "300")
    assert again == page
    assert report(*one, tmp_path / "b/run", "--resamples", "300", "--seed", "1") != page
    assert "95% intervals" not in report(*one, tmp_path / "b/run", "--resamples", "0")


def test_runs_on_different_images_are_shown_and_their_comparison_refused(report, tmp_path, capsys):
    a = write_run(tmp_path / "a", [3, 5])
    b = write_run(tmp_path / "b", [3, 5, 6], dataset="u_val", seed=1)
    page = report(a, b, "--resamples", "20")
    error = capsys.readouterr().err
    for text in (error, page):
        assert "cannot be compared" in text
        assert "t_val" in text
        assert "u_val" in text
    assert "Differences on the same resamples" not in page
    assert "95% intervals" in page


def test_results_without_statistics_are_named(report, tmp_path, capsys):
    folder = write_run(tmp_path / "a", [3, 5])
    (folder / "inference" / "sem_seg_per_image.jsonl").unlink()
    report(folder)
    assert "sem_seg_results.json: no interval" in capsys.readouterr().out


def test_a_negative_number_is_refused(report, tmp_path, capsys):
    with pytest.raises(SystemExit):
        report(write_run(tmp_path / "a", [3]), "--resamples", "-1")
    assert "must not be negative" in capsys.readouterr().err
