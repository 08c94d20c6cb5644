"""What ``<task>_explanations.json`` holds, as blocks of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .plots import curves, data_uri, finite
from .run import Run
from .tables import Confusion, Table, confusion_of

_KINDS = {"bbox": "boxes", "segm": "masks"}


@dataclass(frozen=True)
class Block:
    """One explanation.

    Attributes:
        title: above it.
        note: what the numbers mean.
        tables: numbers.
        charts: (caption, data URI).
        matrix: confusion of classes.
        unit: what `matrix` counts.
        pictures: (caption, data URI).
    """

    title: str
    note: str
    tables: Sequence[Table] = ()
    charts: Sequence[tuple[str, str]] = ()
    matrix: Confusion | None = None
    unit: str = "pixels"
    pictures: Sequence[tuple[str, str]] = field(default_factory=tuple)


def blocks(runs: Sequence[Run], key: tuple[str, str]) -> list[Block]:
    """The explanations of a task, of one run after the other.

    Args:
        runs: of the page.
        key: (folder, task) of :attr:`.run.Run.explanations`.
    """
    several = sum(key in run.results for run in runs) > 1
    found = []
    for run in runs:
        content = run.explanations.get(key, {})
        for name, make in _MAKERS.items():
            if content.get(name):
                for block in make(content[name], content):
                    title = f"{block.title}, {run.name}" if several else block.title
                    found.append(Block(**{**vars(block), "title": title}))
    return found


def _tide(found: Mapping[str, Any], _: Mapping[str, Any]) -> Iterator[Block]:
    tables = []
    for kind, figures in found.items():
        rows = [
            [name, figures["gain"].get(name), figures["count"].get(name)]
            for name in figures["gain"]
        ]
        columns = ["error", "AP50 gained", "number"]
        tables.append(
            Table(f"{_KINDS.get(kind, kind)}, AP50 {_two(figures['AP50'])}", columns, rows)
        )
    note = (
        "What AP50 would gain if one kind of error alone were put right (TIDE, Bolya et al. 2020). "
        "Wrong class or badly placed: IoU of 0.5 with another class, of 0.1 to 0.5 with its own. "
        "The gains do not add up: one object can have several errors."
    )
    yield Block("Errors by kind", note, tables)


def _calibration(found: Mapping[str, Any], content: Mapping[str, Any]) -> Iterator[Block]:
    charts, tables = [], []
    for kind, figures in found.items():
        name, errors = _KINDS.get(kind, kind), {}
        if figures:  # scores that are no probabilities have none
            points = [
                (part["score"], part["right"]) for part in figures["bins"] if finite(part["score"])
            ]
            lines = {"calibrated": [(0.0, 0.0), (1.0, 1.0)], "detections": points}
            picture = curves(lines, "score", "share that is right", limits=(0, 1.02))
            caption = f"{name}: expected calibration error {_two(figures['ECE'])} %"
            charts.append((f"{caption}, largest gap {_two(figures['MCE'])} %", picture))
            errors = figures["ECE_by_class"]
        best = content.get("best_scores", {}).get(kind, {})
        rows = [
            [
                label,
                errors.get(label),
                *(row.get(c) for c in ("from_score", "F1", "precision", "recall", "objects")),
            ]
            for label, row in best.items()
        ]
        columns = ["class", "ECE", "best from score", "F1", "precision", "recall", "objects"]
        tables.append(Table(f"{name} by class", columns, rows))
    if any(table.rows for table in tables):
        note = (
            "Whether a score is the share of detections that are right at IoU 0.5: below the "
            "diagonal the model is too sure. Best is the score from which F1 is highest."
        )
        yield Block("Scores", note, tables, charts)


def _confusion(found: Mapping[str, Any], content: Mapping[str, Any]) -> Iterator[Block]:
    names = [*found["classes"], "(background)"]
    note = (
        f"Detections with a score of at least {found['confidence']} at IoU 0.5 of "
        f"{_KINDS.get(content.get('overlap', ''), 'masks')}. Rows are true classes, columns "
        "predicted ones; shares of the row, in percent. Column (background): not found; row "
        "(background): invented."
    )
    matrix = confusion_of(names, found["counts"])
    yield Block("Confusion of classes", note, matrix=matrix, unit="objects")


def _label_errors(
    found: Sequence[Mapping[str, Any]], content: Mapping[str, Any]
) -> Iterator[Block]:
    columns = ["file", "suspicion", "predicted", "annotated", "score", "IoU"]
    keys = ("file_name", "suspicion", "predicted", "annotated", "score", "iou")
    rows = [[entry.get(key) for key in keys] for entry in found]

    def caption(entry: Mapping[str, Any]) -> str:
        stated = f", annotated {entry['annotated']}" if "annotated" in entry else ""
        predicted = f"{entry['predicted']} {_two(entry['score'])}{stated}"
        return f"{entry['suspicion']}: {predicted} in {Path(entry['file_name']).name}"

    note = (
        "Sure detections that contradict an annotation which no other detection supports: "
        "the prediction blue, the annotation green. Look at them before the model is blamed. "
        f"The surest {len(found)} of {content.get('label_errors_found', len(found))}."
    )
    yield Block(
        "Likely label errors", note, [Table("", columns, rows)], pictures=_pictures(found, caption)
    )


def _object_slices(found: Sequence[Mapping[str, Any]], _: Mapping[str, Any]) -> Iterator[Block]:
    rows = [[part[key] for key in ("slice", "objects", "recall", "sure_recall")] for part in found]
    columns = ["objects", "number", "found, %", "found by scores from 0.5, %"]
    note = "Found at IoU 0.5. Small and large are COCO's: up to 32², above 96² pixels."
    yield Block("Objects by size and place", note, [Table("", columns, rows)])


def _image_slices(found: Sequence[Mapping[str, Any]], _: Mapping[str, Any]) -> Iterator[Block]:
    scores = list(dict.fromkeys(k for part in found for k in part if k not in ("slice", "images")))
    rows = [[part["slice"], part["images"], *(part.get(k) for k in scores)] for part in found]
    note = "A part with few images has a score that says little."
    yield Block("Parts of the dataset", note, [Table("", ["images", "number", *scores], rows)])


def _border(found: Sequence[Mapping[str, Any]], _: Mapping[str, Any]) -> Iterator[Block]:
    rows, low = [], 0
    for band in found:
        up_to = band["up_to"]
        name = (
            f"more than {low}"
            if up_to is None
            else f"{low} to {up_to}"
            if low
            else f"up to {up_to}"
        )
        rows.append([name, *(band[key] for key in ("pixels", "wrong", "error", "share"))])
        low = up_to
    columns = ["pixels to the border", "labelled", "wrong", "wrong, %", "share of all errors, %"]
    note = "By the distance of a pixel to the nearest pixel of another class of the ground truth."
    yield Block("Errors by distance to the border", note, [Table("", columns, rows)])


def _pairs(found: Sequence[Mapping[str, Any]], _: Mapping[str, Any]) -> Iterator[Block]:
    keys = ("true", "predicted", "pixels", "share", "share_of_class")
    columns = ["true", "predicted", "pixels", "% of all errors", "% of the true class"]
    rows = [[entry[key] for key in keys] for entry in found]

    def caption(entry: Mapping[str, Any]) -> str:
        where = f"{entry['pixels_there']:,} pixels in {Path(entry['file_name']).name}"
        return f"{entry['true']} as {entry['predicted']}: {where}"

    note = "Each with the largest such region of the image that has most of them, in red."
    pictures = _pictures(found, caption)
    yield Block("Classes confused most", note, [Table("", columns, rows)], pictures=pictures)


def _quality(found: Mapping[str, Any], content: Mapping[str, Any]) -> Iterator[Block]:
    keys = ("PQ", "SQ", "RQ", "precision", "recall")
    columns = ["class", "PQ", "with perfect outlines (RQ)", "with all found (SQ)", *keys[3:]]
    rows = [
        [name, row["PQ"], row["RQ"], row["SQ"], row["precision"], row["recall"]]
        for name, row in found.items()
    ]
    tables = [Table("where PQ is lost", columns, rows)]
    reasons = content.get("not_found") or {}
    kinds = list(dict.fromkeys(kind for row in reasons.values() for kind in row))
    rows = [[name, *(row.get(kind) for kind in kinds)] for name, row in reasons.items()]
    tables.append(Table("segments not found, by reason", ["class", *kinds], rows))
    note = (
        "PQ = SQ x RQ: outlines of what is found, and how much is found. Not found, the first that "
        "holds: another class has IoU above 0.5; a prediction holds half of it and of another one; "
        "several lie within it; the best IoU is 0.1 to 0.5."
    )
    yield Block("Recognition and segmentation", note, tables)


def _merged(found: Sequence[Mapping[str, Any]], _: Mapping[str, Any]) -> Iterator[Block]:
    def caption(entry: Mapping[str, Any]) -> str:
        where = f"{entry['pixels']:,} pixels in {Path(entry['file_name']).name}"
        return f"{entry['class']} {entry['reason']}: {where}"

    note = "The largest of them: the true segment green, the predictions blue."
    yield Block("Merged and split segments", note, pictures=_pictures(found, caption))


def _pictures(
    entries: Sequence[Mapping[str, Any]], caption: Callable[[Mapping[str, Any]], str]
) -> list[tuple[str, str]]:
    return [
        (caption(entry), data_uri(entry["picture"].read_bytes(), "image/jpeg"))
        for entry in entries
        if entry.get("picture")
    ]


def _two(value: Any) -> str:
    return f"{value:.2f}" if finite(value) else "–"


# In the order of the page.
_MAKERS: dict[str, Callable[[Any, Mapping[str, Any]], Iterator[Block]]] = {
    "tide": _tide,
    "confusion": _confusion,
    "calibration": _calibration,
    "object_slices": _object_slices,
    "label_errors": _label_errors,
    "border": _border,
    "confusion_pairs": _pairs,
    "quality": _quality,
    "merged_or_split": _merged,
    "image_slices": _image_slices,
}
