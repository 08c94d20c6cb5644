"""The page itself: what is shown, in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2

from ...tasks import TASKS
from . import tables
from .explanations import blocks
from .pictures import KINDS, examples, side_by_side
from .plots import curves, finite
from .run import Run
from .summary import Intervals, alarms, tiles

_TITLES = {task.output: task.title for task in TASKS}


def build_page(
    runs: Sequence[Run],
    *,
    errors: Sequence[str] = (),
    statistics: Sequence[tables.Table] = (),
    intervals: Intervals | None = None,
) -> bytes:
    """One HTML page about one run, or about several side by side.

    Everything that comes from files is escaped. The page loads nothing: styles, scripts and
    pictures are inside, and its content security policy forbids the rest.

    Args:
        runs: the run folders, read.
        errors: parts that could not be made; shown at the top.
        statistics: tables of intervals and differences.
        intervals: of the figures in the tiles.

    Returns:
        UTF-8.
    """
    # With as many names as runs: two folders may be called alike.
    names = [run.name for run in runs]
    runs = [
        run if names.count(run.name) == 1 else _renamed(run, f"{run.name} ({i})")
        for i, run in enumerate(runs, start=1)
    ]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("seg_plugins.visualization.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _cell
    template = environment.get_template("report.html")
    text = template.render(
        title=" | ".join(run.name for run in runs),
        runs=runs,
        errors=[*errors, *(problem for run in runs for problem in run.problems)],
        tiles=tiles(runs, intervals or {}),
        alarms=alarms(runs),
        facts=_facts(runs),
        systems=[(run.name, table) for run in runs if (table := tables.system(run))],
        charts=_charts(runs),
        statistics=statistics,
        tasks=[_task(runs, key) for key in dict.fromkeys(k for run in runs for k in run.results)],
        side_by_side=side_by_side(runs),
        examples=[(run.name, groups) for run in runs if (groups := examples(run))],
        kinds=KINDS,
        differences=_differences(runs) if len(runs) > 1 else None,
        style=_asset("report.css"),
        script=_asset("report.js"),
    )
    return text.encode("utf-8", "replace")


def _differences(runs: Sequence[Run]) -> list[tables.Table]:
    """What is not the same in all runs: of what they were, and of their configurations."""
    facts = _facts(runs)
    # When and how fast is told further down.
    beside = ("date", "training, seconds")
    rows = [row for row in facts.rows if row[0] not in beside and len({*row[1:]}) > 1]
    return [
        tables.Table("Differing runs", facts.columns, rows),
        tables.differing_settings(runs),
    ]


def _renamed(run: Run, name: str) -> Run:
    return Run(**{**vars(run), "name": name})


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text("utf-8")


def _cell(value: Any, digits: int = 2) -> str:
    """A table cell; names pass through, to be escaped by the template."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.{digits}f}" if finite(value) else "–"


def _facts(runs: Sequence[Run]) -> tables.Table:
    """What each run was, from ``run.json``."""
    labels = {
        "system": "system",
        "backbone": "backbone",
        "parameters": "parameters",
        "iterations": "iterations",
        "batch": "images per batch",
        "seed": "seed",
        "seconds": "training, seconds",
        "hardware": "hardware",
        "date": "date",
        "version": "seg_plugins",
        "commit": "commit",
    }
    rows = [
        [label, *(_fact(key, run.record.get(key)) for run in runs)]
        for key, label in labels.items()
        if any(key in run.record for run in runs)
    ]
    for kind in ("train", "test"):
        found = [", ".join((run.record.get("datasets") or {}).get(kind, [])) for run in runs]
        if any(found):
            rows.append([f"{kind} set", *found])
    versions = [run.record.get("versions") or {} for run in runs]
    for name in dict.fromkeys(name for version in versions for name in version):
        rows.append([name, *(version.get(name) for version in versions)])
    return tables.Table("", ["", *(run.name for run in runs)], rows)


def _fact(key: str, value: Any) -> str | None:
    if value is None:
        return None
    return str(value) if key == "seed" else _cell(value, 0)


def _charts(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """(caption, data URI) of the curves over the iterations."""
    keys = dict.fromkeys(key for run in runs for row in run.metrics for key in row)
    charts = []
    if "total_loss" in keys:
        both = [key for key in ("total_loss", "validation/total_loss") if key in keys]
        caption = "total loss" if len(both) == 1 else "total loss, of training and validation"
        charts.append((caption, _over_time(runs, both, "total loss")))
    parts = [key for key in keys if key.startswith("loss_")]
    if len(parts) > 1 and len(runs) == 1:
        charts.append(("parts of the loss", _over_time(runs, parts, "loss")))
    if "lr" in keys:
        charts.append(("learning rate", _over_time(runs, ["lr"], "learning rate")))
    results = [found.get("results") or {} for run in runs for found in run.results.values()]
    measured = {group for result in results for group in result}
    own = measured.difference(*(task.groups for task in TASKS))
    for task in dict.fromkeys(key.split("/")[0] for key in keys if "/" in key):
        if not any(_times(run, task) > 1 for run in runs):
            continue  # one evaluation is no curve
        # Scores in percent of the whole set; those of single classes stand in the tables.
        # Those of an evaluator of the user's own are all of interest; their unit is not known.
        whole = [key for key in keys if key.startswith(f"{task}/") and "-" not in key]
        wanted = [key for key in whole if task in own or key.split("/")[1] in _CURVES]
        if wanted:
            label = "score" if task in own else "percent"
            charts.append((f"{task} scores", _over_time(runs, wanted, label, task)))
    return charts


def _times(run: Run, task: str) -> int:
    """At how many iterations a task was evaluated."""
    return sum(any(key.startswith(f"{task}/") for key in row) for row in run.metrics)


_CURVES = ("mIoU", "pACC", "PQ", "SQ", "RQ", "AP", "AP50", "AP75", "IoU")


def _over_time(runs: Sequence[Run], keys: Sequence[str], label: str, task: str = "") -> str:
    lines = {}
    for run in runs:
        for key in keys:
            points = [(row["iteration"], row[key]) for row in run.metrics if finite(row.get(key))]
            name = key.removeprefix(f"{task}/") if task else key
            several = f"{run.name} {name}" if len(keys) > 1 else run.name
            lines[several if len(runs) > 1 else name] = points
    if len(lines) == 1:
        lines = {label: next(iter(lines.values()))}
    return curves(lines, "iteration", label, log="loss" in label)


def _task(runs: Sequence[Run], key: tuple[str, str]) -> dict[str, Any]:
    """Everything about one task on one dataset."""
    folder, task = key
    with_results = [(run, run.results[key]) for run in runs if key in run.results]
    summaries, classes = tables.scores(runs, key)
    several = len(with_results) > 1

    def named(run: Run, text: str) -> str:
        return f"{run.name}: {text}" if several else text

    extra, matrices = [], []
    for run, result in with_results:
        more = [*tables.by_size(result), *([found] if (found := tables.counts(result)) else [])]
        extra += [
            tables.Table(named(run, table.title), table.columns, table.rows) for table in more
        ]
        if matrix := tables.confusion(result):
            matrices.append((run.name if several else "", matrix))
    datasets = [str(result.get("dataset") or folder) for _, result in with_results]
    different = len(set(datasets)) > 1  # whether they compare is for the reader to judge
    title = f"{_TITLES[task]} segmentation" if task in _TITLES else task
    return {
        "title": f"{title} on {', '.join(dict.fromkeys(datasets))}",
        "images": [
            (
                named(run, f"{dataset}, " if different else ""),
                result.get("images") or {},
            )
            for (run, result), dataset in zip(with_results, datasets, strict=True)
        ],
        "summaries": summaries,
        "classes": classes,
        "extra": extra,
        "confusions": matrices,
        "explanations": blocks(runs, key),
        "charts": _precision_recall([(named, run, result) for run, result in with_results]),
    }


def _precision_recall(found: Sequence[tuple[Any, Run, Mapping[str, Any]]]) -> list[tuple[str, str]]:
    charts = []
    for named, run, result in found:
        for kind, curve in (result.get("pr_curves") or {}).items():
            recall = curve.get("recall") or []
            kinds = {name: curve[name] for name in ("AP50", "AP", "AP75") if name in curve}
            classes = curve.get("AP50_by_class") or {}
            for text, group in ((kind, kinds), (f"{kind} AP50 by class", classes)):
                lines = {
                    name: [(x, y) for x, y in zip(recall, values, strict=False) if finite(y)]
                    for name, values in group.items()
                    if values
                }
                if lines and len(lines) <= 20:
                    picture = curves(lines, "recall", "precision", limits=(0, 1.02))
                    charts.append((named(run, f"precision and recall, {text}"), picture))
    return charts
