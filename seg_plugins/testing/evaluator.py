"""What evaluators must do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator

from ..data import Dataset
from ..evaluation import build_evaluator, declared_metrics

Predict = Callable[[Mapping[str, Any]], dict[str, Any]]


def check_evaluator(
    cfg: CfgNode, name: str, perfect: Predict, poor: Predict, *, folder: str | Path | None = None
) -> dict[str, dict[str, float]]:
    """Hold the evaluator of a dataset against the contract.

    It says by ``metrics()`` which figures it gives and whether higher is better; gives them as
    ``{group: {name: number}}``; gives the same in any order, in batches of any size and after
    ``reset``; and a perfect prediction is better than a poor one by its first figure.

    Args:
        cfg: the configuration; builders read their own keys of it.
        name: of the dataset, whose ``evaluator_type`` names the evaluator.
        perfect: from a record of the dataset to the output that a perfect model would give.
        poor: the same for a model that is often wrong.
        folder: where the evaluator may write.

    Returns:
        The results of the perfect model.

    Raises:
        AssertionError: names what does not hold.
    """
    evaluator = build_evaluator(cfg, name, folder)
    kind = type(evaluator).__name__
    declared = declared_metrics(evaluator)
    assert declared, f"{kind} has no method metrics(): {{'group/name': higher is better}}"
    records = Dataset.get(name).records
    results = _evaluate(evaluator, records, perfect, len(records))
    flat = {
        f"{group}/{key}": value for group, part in results.items() for key, value in part.items()
    }
    missing = [key for key in declared if key not in flat]
    assert not missing, f"{kind} declares {missing} and does not give them: {list(flat)}"
    for key in declared:
        assert isinstance(flat[key], (int, float)), f"{kind}: {key} is {flat[key]!r}, no number"
    worse = _evaluate(evaluator, records, poor, 2)
    first = next(iter(declared))
    best, worst = flat[first], _figure(worse, first)
    assert best != worst, f"{kind}: {first} is {best} for a perfect model and for a poor one"
    assert (best > worst) == declared[first], (
        f"{kind}: {first} is {best} for a perfect model and {worst} for a poor one, but metrics() "
        f"says that {'higher' if declared[first] else 'lower'} is better"
    )
    # Only now: what is left of the poor model would show.
    for what, predict, before in (("perfect", perfect, results), ("poor", poor, worse)):
        again = _evaluate(evaluator, list(reversed(records)), predict, 1)
        for key in flat:
            value, other = _figure(before, key), _figure(again, key)
            assert _same(value, other), (
                f"{kind}: of a {what} model {key} is {value} and, one image at a time in another "
                f"order after reset(), {other}"
            )
    return results


def _evaluate(
    evaluator: DatasetEvaluator, records: list[Any], predict: Predict, size: int
) -> dict[str, dict[str, float]]:
    evaluator.reset()
    for i in range(0, len(records), size):
        batch = [dict(record) for record in records[i : i + size]]
        evaluator.process(batch, [predict(record) for record in batch])
    found = evaluator.evaluate()
    assert isinstance(found, dict), f"evaluate() gives {type(found).__name__}, not a dict"
    return found


def _figure(results: Mapping[str, Mapping[str, float]], key: str) -> float:
    group, _, name = key.partition("/")
    return results[group][name]


def _same(first: float, second: float) -> bool:
    return (
        first == second
        or math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-9)
        or (math.isnan(first) and math.isnan(second))
    )
