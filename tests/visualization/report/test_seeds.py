"""Runs that are seeds of one configuration: which they are, and their mean and range."""

from __future__ import annotations

from dataclasses import replace

from seg_plugins.visualization.report import Run, build_page, by_seed, read_run, seed_tables

import pytest
from run_folders import write_run


def run(folder, miou, *, seed, rate=0.1):
    figures = {"sem_seg": {"mIoU": miou, "IoU-a": 1.0}}
    config = f"SEED: {seed}\nOUTPUT_DIR: {folder}\nSOLVER:\n  BASE_LR: {rate}\n"
    results = {("", "sem_seg"): {"results": figures}}
    return Run(folder.name, folder, config=config, results=results)


def test_folders_of_seeds_are_one_run_with_mean_and_range(tmp_path):
    runs = [run(tmp_path / "a" / f"seed_{i}", miou, seed=i) for i, miou in ((1, 50.0), (2, 53.0))]
    other = run(tmp_path / "b" / "seed_1", 40.0, seed=1, rate=0.2)
    groups = by_seed([*runs, other])
    assert groups == {"a (2 seeds)": runs, "b/seed_1": [other]}
    (table,) = seed_tables(groups)
    assert table.title == "a (2 seeds)"
    assert table.columns == ["metric", "mean", "lowest", "highest", "seeds"]
    assert table.rows == [["sem_seg/mIoU", 51.5, 50.0, 53.0, 2]]


def test_configurations_that_differ_in_the_seed_alone_are_one_run(tmp_path):
    runs = [run(tmp_path / name, 50.0, seed=i) for i, name in enumerate("xy")]
    assert by_seed(runs) == {"x (2 seeds)": runs}
    other = run(tmp_path / "y", 50.0, seed=1, rate=0.2)
    assert by_seed([runs[0], other]) == {"x": [runs[0]], "y": [other]}


def test_one_seed_before_and_after_a_change_of_the_code_is_a_comparison(tmp_path):
    before, after = (run(tmp_path / name, 50.0, seed=1) for name in "xy")
    assert by_seed([before, after]) == {"x": [before], "y": [after]}
    after = replace(run(tmp_path / "y", 50.0, seed=2), record={"commit": "abc"})
    assert by_seed([before, after]) == {"x": [before], "y": [after]}


@pytest.mark.parametrize("config", ["", "{damaged"])
def test_runs_without_a_readable_configuration_stay_apart(tmp_path, config):
    runs = [Run("run", tmp_path / name / "run", config=config) for name in "ab"]
    assert by_seed(runs) == {"run": [runs[0]], str(runs[1].folder): [runs[1]]}
    assert seed_tables(by_seed(runs)) == []


def test_undefined_figures_of_a_seed_are_left_out_and_counted(tmp_path):
    runs = [run(tmp_path / f"seed_{i}", value, seed=i) for i, value in ((1, None), (2, 30.0))]
    (table,) = seed_tables(by_seed(runs))
    assert table.rows == [["sem_seg/mIoU", 30.0, 30.0, 30.0, 1]]


def test_the_page_shows_the_tables(tmp_path):
    runs = [read_run(write_run(tmp_path / f"seed_{i}", seed=i)) for i in (1, 2)]
    page = build_page(runs, statistics=seed_tables(by_seed(runs))).decode()
    section = page[page.index('<section id="statistics">') :]
    assert "How sure the figures are" in section
    assert '<td class="number" data-value="26.5">26.50</td>' in section
    assert '<section id="statistics">' not in build_page(runs).decode()
