"""The checked dataset: what evaluators, predictor, pictures, class weights and checks share."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..io.label_encoding import LabelEncoding
from ..tasks import Task, known_evaluators, task_named, task_of_evaluator, task_of_record
from .dataset_classes import Classes, classes_of
from .datasets.catalogue import load_dataset, thing_table
from .datasets.coco_fields import Records
from .datasets.coco_instances import read_instances
from .datasets.root import dataset_root
from .errors import CollectedErrors, DatasetError, Report
from .panoptic_truth import PanopticTruth, panoptic_of_file
from .record_form import flaw_of

__all__ = ["Dataset", "evaluator_types", "task_of_dataset"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """One registered dataset, loaded and checked once in each process.

    Built by :meth:`get` from any dataset that Detectron2 knows: this package's rows, descriptions
    of users' own, ``register_coco_instances`` and ``DatasetCatalog.register``, and names that only
    have metadata with a ``json_file`` or ``panoptic_json``, as Detectron2's evaluators take them.

    Attributes:
        name: as registered.
        task: what it has the truth of.
        records: Detectron2's dicts; of instances and segments, every one has an ``image_id``.
        things, stuff: the classes of instances, and of semantic labels.
        ignore_label: id of pixels without a class.
        evaluator_types: as the metadata says, or that of the task.
        metadata: a copy of Detectron2's.
    """

    name: str
    task: Task
    records: list[dict[str, Any]]
    things: Classes
    stuff: Classes
    ignore_label: int
    evaluator_types: tuple[str, ...]
    metadata: Mapping[str, Any]

    @staticmethod
    def get(name: str | Dataset, max_damaged: float = 0.0) -> Dataset:
        """The dataset of that name; the same object until it is registered anew.

        Args:
            name: registered name, or a Dataset, which is given back.
            max_damaged: share of wrong annotations that are left out and counted when it is
                loaded, ``DATALOADER.MAX_DAMAGED``.

        Raises:
            DatasetError: an unknown name, missing files, more wrong annotations.
        """
        if isinstance(name, Dataset):
            return name
        known = Dataset.loaded(name)
        if known is None:
            known = _load(name, max_damaged)
            # Loading may complete the metadata, which is part of the state.
            _LOADED[name] = (_state(name), known)
        return known

    @staticmethod
    def loaded(name: str) -> Dataset | None:
        """The dataset of that name, where it is loaded and has not been registered anew since."""
        state, known = _LOADED.get(name, (None, None))
        return known if known is not None and state == _state(name) else None

    @staticmethod
    def forget(name: str) -> None:
        """Free the records of a dataset, once they are kept in another form; it may be got anew."""
        _LOADED.pop(name, None)

    @property
    def num_things(self) -> int:
        """Number of classes that are counted.

        Detectron2's panoptic datasets repeat all classes as things; the ids tell which are.
        """
        if self.things.names == self.stuff.names:
            return len(self.things.category_ids)
        return len(self.things)

    @property
    def separated(self) -> bool:
        """Whether a panoptic dataset has its instances in a file of their own."""
        panoptic = self.task.name == "panoptic" and bool(self.records)
        return panoptic and not any(map(_has_segments, self.records))

    @property
    def source(self) -> str:
        """The annotation file, or the name where there is none; for messages."""
        return str(self.metadata.get("json_file") or self.name)

    def required(self, key: str) -> Any:
        """An entry of the metadata.

        Raises:
            DatasetError: there is none.
        """
        if not self.metadata.get(key):
            raise DatasetError(
                f"dataset '{self.name}' has no '{key}' in its metadata: set it by "
                f"MetadataCatalog.get('{self.name}').{key} = ..."
            )
        return self.metadata[key]

    @property
    def read_label(self) -> Any:
        """Reads a label file of a record without ``sem_seg_encoding``: (H, W) class ids."""
        known = self.metadata.get("sem_seg_loading_fn")
        return known or LabelEncoding(classes=len(self.stuff), ignore_label=self.ignore_label)

    @property
    def label_category_ids(self) -> dict[int, int]:
        """Class of a label map -> id in files of results: COCO's where the dataset has such ids.

        Thing classes may be listed apart.
        """
        numbered = [kind.category_ids for kind in (self.things, self.stuff) if kind.numbered]
        ids = {place: category for kind in numbered for place, category in kind.items()}
        return {place: ids.get(place, place) for place in range(len(self.stuff))}

    @cached_property
    def instance_classes(self) -> list[tuple[int, int, str]]:
        """(class that models predict, id in the file, name) of each class that is counted.

        The annotations of :attr:`instance_records` count the classes in this order. Models of a
        panoptic dataset in one file predict the place among all classes.
        """
        names = dict(enumerate(self.things.names))
        if self.task.name == "panoptic" and not self.separated and self.stuff:
            names = dict(enumerate(self.stuff.names))
        ids = self.things.category_ids
        return [(place, ids[place], names.get(place, str(place))) for place in sorted(ids)]

    @cached_property
    def instance_records(self) -> list[dict[str, Any]]:
        """Records with ``annotations``, of this dataset or of the ``json_file`` beside it.

        Records of files without annotations, as those of hidden test sets, have no such key.

        Raises:
            DatasetError: there are none.
        """
        # Those of this package's readers hold all that the file says; others may be a user's own.
        if isinstance(self.records, Records) and (self.task.name == "instance" or self.separated):
            return self.records
        json_file = self.metadata.get("json_file")
        if json_file:
            images = Path(self.metadata.get("image_root", ""))
            return read_instances(Path(json_file), images, thing_table(self.metadata))
        if self.records and "annotations" in self.records[0]:
            return self.records
        raise DatasetError(f"dataset '{self.name}' has no instances")

    @cached_property
    def panoptic(self) -> PanopticTruth:
        """The panoptic annotations.

        Raises:
            DatasetError: there are none.
        """
        if self.records and all(map(_has_segments, self.records)):
            return PanopticTruth(self._categories(), [self._in_file_ids(r) for r in self.records])
        file, segments = self.required("panoptic_json"), self.required("panoptic_root")
        images = self.metadata.get("image_root", "")
        return panoptic_of_file(*map(Path, (file, images, segments)))

    def _categories(self) -> list[dict[str, Any]]:
        categories = {}
        for classes, isthing in ((self.stuff, 0), (self.things, 1)):  # a thing may be in both
            for place, category in classes.category_ids.items():
                name = classes.names[place] if place < len(classes.names) else str(category)
                categories[category] = {"id": category, "name": name, "isthing": isthing}
        return [categories[category] for category in sorted(categories)]

    def _in_file_ids(self, record: Mapping[str, Any]) -> dict[str, Any]:
        segments = []
        for segment in record["segments_info"]:
            classes = self.things if segment.get("isthing", True) else self.stuff
            category = classes.category_ids.get(segment["category_id"])
            if category is None:
                raise DatasetError(
                    f"{record['pan_seg_file_name']}: segment {segment['id']} has the class "
                    f"{segment['category_id']}, which is none of dataset '{self.name}'"
                )
            segments.append({**segment, "category_id": category})
        kept = {key: record[key] for key in record if key != "segments_info"}
        return {**kept, "segments_info": segments}


def task_of_dataset(name: str) -> Task:
    """What a registered dataset is mapped as; it is loaded only where its metadata does not say.

    The "separated" form of panoptic datasets is one of instances with a label beside them.

    Raises:
        DatasetError: it cannot be told.
    """
    known = (known_evaluators().get(kind) for kind in evaluator_types(name))
    task = next(filter(None, known), None) or Dataset.get(name).task
    separated = task.name == "panoptic" and bool(_metadata(name).get("sem_seg_root"))
    return task_named("instance") if separated else task


def evaluator_types(name: str) -> tuple[str, ...]:
    """What the metadata of a dataset says, one name or several."""
    given = _metadata(name).get("evaluator_type") or ()
    return (given,) if isinstance(given, str) else tuple(given)


_TRUTH_ALONE = {"panoptic_json", "gt_dir"}
_LOADED: dict[str, tuple[tuple[Any, ...], Dataset]] = {}


def _has_segments(record: Mapping[str, Any]) -> bool:
    return "pan_seg_file_name" in record


def _metadata(name: str) -> dict[str, Any]:
    # MetadataCatalog.get would make an entry for a name that nobody has registered.
    return dict(MetadataCatalog.get(name).as_dict()) if name in MetadataCatalog.list() else {}


def _state(name: str) -> tuple[Any, ...]:
    """Changes when a dataset is registered anew, its metadata or its annotation file changes."""
    metadata = _metadata(name)
    files = [str(metadata[key]) for key in ("json_file", "panoptic_json") if metadata.get(key)]
    loader = DatasetCatalog[name] if name in DatasetCatalog.list() else None
    shown = repr(sorted(metadata.items(), key=str))
    return loader, shown, [_stamp(file) for file in files], str(dataset_root())


def _stamp(file: str) -> tuple[int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _load(name: str, max_damaged: float) -> Dataset:
    # Names with metadata alone are enough for Detectron2's panoptic and Cityscapes evaluators.
    alone = name not in DatasetCatalog.list() and not _TRUTH_ALONE.isdisjoint(_metadata(name))
    found = CollectedErrors()
    records = [] if alone else load_dataset(name, found)
    metadata = _metadata(name)
    if not isinstance(records, Records):  # which this package's reader has checked
        things = len(metadata.get("thing_classes") or ())
        records = [record for record in records if _is_usable(record, things, found)]
    found.check(max_damaged, name, records)
    types = evaluator_types(name)
    task = _task(name, types, records, metadata)
    panoptic = task.name == "panoptic" and (not records or any(map(_has_segments, records)))
    if task.name != "semantic" and any("image_id" not in record for record in records):
        records = [{"image_id": place, **record} for place, record in enumerate(records)]
    return Dataset(
        name=name,
        task=task,
        records=records,
        # Things of a panoptic dataset in one file are numbered among all classes.
        things=classes_of(metadata, "thing", all_listed=not panoptic),
        stuff=classes_of(metadata, "stuff", all_listed=True),
        ignore_label=int(metadata.get("ignore_label", 255)),
        evaluator_types=types or (task.evaluator,),
        metadata=metadata,
    )


def _task(
    name: str, types: Sequence[str], records: Sequence[Mapping], metadata: Mapping[str, Any]
) -> Task:
    """What the evaluator types say, or else, where none of them is known, what the records hold."""
    for known in types:
        if known in known_evaluators():
            return task_of_evaluator(known)
    found = task_of_record(records[0]) if records else None
    if found is None and metadata.get("panoptic_json"):
        found = task_named("panoptic")
    if found is None and metadata.get("json_file"):
        found = task_named("instance")
    if found is None and metadata.get("gt_dir"):  # Cityscapes'
        found = task_named("instance" if metadata.get("thing_classes") else "semantic")
    if found is None:
        raise DatasetError(
            f"dataset '{name}' has neither an evaluator_type in its metadata nor records with "
            "annotations, sem_seg_file_name or pan_seg_file_name: its task cannot be told"
        )
    return found


def _is_usable(record: Any, things: int, report: Report) -> bool:
    """Whether a record of a user's own loader has the form that later stages rely on.

    Args:
        record: Detectron2's dict.
        things: number of classes that its annotations count; 0 where it is not known.
        report: called with what is wrong.
    """
    flaw = flaw_of(record)
    if not flaw and things:
        outside = [a for a in record.get("annotations", ()) if not 0 <= a["category_id"] < things]
        if outside:
            flaw = (
                f"{record['file_name']}: category_id {outside[0]['category_id']} is none of the "
                f"{things} in thing_classes; it counts them from 0"
            )
    if flaw:
        report(DatasetError(flaw))
    return not flaw
