"""One split of a dataset, and all splits of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .layouts import Layout

__all__ = ["Dataset", "Row"]


@dataclass(frozen=True)
class Row:
    """One split of a dataset.

    Attributes:
        name: as users type it.
        task: "semantic", "instance", "panoptic" or "panoptic_separated" (Detectron2's form with
            instances and a semantic label in which all things are one class).
        table: name of the class table.
        folder: the dataset's folder below the dataset root.
        layout: how the files of the split lie in it.
        prepare: makes the files if need be and returns the folder, for generated datasets.
        color_labels: label images hold the classes' colours.
        evaluator: evaluator_type where it is not that of the task.
    """

    name: str
    task: str
    table: str
    folder: str
    layout: Layout
    prepare: Callable[[], Path] | None = None
    color_labels: bool = False
    evaluator: str = ""


@dataclass(frozen=True)
class Dataset:
    """What the splits of a dataset share; attributes that are not listed here are those of a row.

    Attributes:
        name: of the dataset; its rows are called ``name_split``.
        table: name of the class table; "" takes the one that is called as the dataset is.
    """

    name: str
    folder: str
    task: str = "semantic"
    table: str = ""
    prepare: Callable[[], Path] | None = None
    color_labels: bool = False
    evaluator: str = ""

    def rows(self, **layouts: Layout) -> list[Row]:
        """One row for each split and its layout."""
        return [
            Row(
                name=f"{self.name}_{split}",
                task=self.task,
                table=self.table or self.name,
                folder=self.folder,
                layout=layout,
                prepare=self.prepare,
                color_labels=self.color_labels,
                evaluator=self.evaluator,
            )
            for split, layout in layouts.items()
        ]
