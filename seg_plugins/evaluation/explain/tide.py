"""TIDE: which kind of mistake costs how much AP50.

Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, 2020, section 3.
Written here and not taken from hotcoco 1.3.0, whose figures equal these on data without crowds but
which counts overlap with a crowd as a badly placed detection.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .detections import DetectionTable, average_precisions

#: IoU from which a detection found an object, and up to which it is on the background.
FOUND, BACKGROUND = 0.5, 0.1
#: The kinds of mistakes in the paper's order; the last is of objects, not of detections.
KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")


def mistake_kinds(table: DetectionTable) -> np.ndarray:
    """(N,) int64 place in :data:`KINDS`; -1 of what is no mistake.

    In this order: a detection of the right class with IoU 0.1 to 0.5 is placed badly; one with
    another class's object at 0.5 or more is of the wrong class; one whose object another
    detection found is a duplicate; one that overlaps nothing by more than 0.1 is on the
    background; the rest, wrong in class and place, is both.
    """
    kinds = np.select(
        [
            (table.own_iou >= BACKGROUND) & (table.own_iou < FOUND),
            table.other_iou >= FOUND,
            table.own_iou >= FOUND,
            np.maximum(table.own_iou, table.other_iou) <= BACKGROUND,
        ],
        [KINDS.index(k) for k in ("localisation", "classification", "duplicate", "background")],
        default=KINDS.index("both"),
    )
    return np.where(table.mistake, kinds, -1)


def tide(table: DetectionTable) -> dict[str, Any]:
    """AP50 gained by correcting each kind of mistake alone, and how many there are.

    A detection of the wrong class or place becomes a hit where its object is not found otherwise,
    the surest one of each object; the others, duplicates, background and both are removed; missed
    objects that no such correction would find are taken out of the count.

    Returns:
        ``AP50``, ``gain`` by kind, both in percent (None without objects), and ``count`` by kind.
    """
    kinds = mistake_kinds(table)
    order = table.order[table.counts[table.order]]
    target = _corrected_objects(table, kinds, order)
    useful = np.zeros(len(table.crowd), bool)
    useful[target[target >= 0]] = True
    missed = ~(table.found | table.crowd | useful)
    base = _mean_precision(table, order, table.category, table.hit, table.wanted)
    gain = {}
    for place, kind in enumerate(KINDS):
        category, hit, wanted = table.category.copy(), table.hit, table.wanted
        kept = order
        if kind == "missed":
            gone = np.bincount(table.truth_category[missed], minlength=table.classes)
            wanted = wanted - gone
        else:
            corrected = (kinds == place) & (target >= 0)
            category[corrected] = table.truth_category[target[corrected]]
            hit = hit | corrected
            kept = order[(kinds[order] != place) | corrected[order]]
        value = _mean_precision(table, kept, category, hit, wanted)
        # Below 0 only by the steps of the curve, which the paper's code sets to 0 as well.
        gain[kind] = None if base is None or value is None else max(value - base, 0.0)
    count = {kind: int(np.count_nonzero(kinds == place)) for place, kind in enumerate(KINDS)}
    return {"AP50": base, "gain": gain, "count": {**count, "missed": int(missed.sum())}}


def _corrected_objects(table: DetectionTable, kinds: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(N,) the object that a detection finds once it is corrected; -1: none."""
    target = np.full(len(kinds), -1, np.int64)
    taken = table.found
    wrong_class, badly_placed = KINDS.index("classification"), KINDS.index("localisation")
    for i in order[np.isin(kinds[order], (wrong_class, badly_placed))]:
        truth = table.other[i] if kinds[i] == wrong_class else table.own[i]
        if not taken[truth]:
            taken[truth] = True
            target[i] = truth
    return target


def _mean_precision(
    table: DetectionTable,
    order: np.ndarray,
    category: np.ndarray,
    hit: np.ndarray,
    wanted: np.ndarray,
) -> float | None:
    """AP50 in percent, the mean of the classes with objects."""
    values = average_precisions(category[order], hit[order], wanted)
    known = values[~np.isnan(values)]
    return 100 * float(known.mean()) if len(known) else None
