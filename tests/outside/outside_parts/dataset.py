"""A dataset: DETECTRON2_DATASETS/stripes/{train,val}/NAME.png beside NAME_label.png."""

import os
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image


def load_stripes(split):
    """Records in Detectron2's standard form."""
    folder = Path(os.environ.get("DETECTRON2_DATASETS", "datasets"), "stripes", split)
    records = []
    for label in sorted(folder.glob("*_label.png")):
        image = label.with_name(label.name.replace("_label", ""))
        width, height = Image.open(image).size
        records.append(
            {
                "file_name": str(image),
                "sem_seg_file_name": str(label),
                "image_id": image.stem,
                "height": height,
                "width": width,
            }
        )
    return records


for split in ("train", "val"):
    DatasetCatalog.register(f"stripes_{split}", lambda split=split: load_stripes(split))
    MetadataCatalog.get(f"stripes_{split}").set(
        stuff_classes=["ground", "stripe"],
        stuff_colors=[[40, 40, 40], [250, 200, 60]],
        ignore_label=255,
        evaluator_type="stripes",  # see evaluator.py; "sem_seg" is the package's
    )
