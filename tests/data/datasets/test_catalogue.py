"""Every row reads a miniature of its published layout, written here without the reader's help."""

from __future__ import annotations

from seg_plugins.data.datasets.catalogue import load_dataset
from seg_plugins.data.datasets.rows import ROWS

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from miniatures import IMAGE, check, label, put, put_text

# Name -> (image file, label file, stored values, their class names; None = ignored), with lists.
SEMANTIC = {
    "isbi2012_train": ("isbi2012/train/image/3.png", "isbi2012/train/label/3.png",
                       {0: "membrane", 255: "cell"}),
    "isbi2012_val": ("isbi2012/train/image/21.png", "isbi2012/train/label/21.png",
                     {0: "membrane", 255: "cell"}),
    "coco_stuff_train": ("coco/train2017/000000000009.jpg",
                         "coco/stuffthingmaps/train2017/000000000009.png",
                         {0: "person", 89: "toothbrush", 91: "banner", 181: "wood", 255: None}),
    "coco_stuff_val": ("coco/val2017/000000000139.jpg",
                       "coco/stuffthingmaps/val2017/000000000139.png", {1: "bicycle", 25: None}),
    "ade20k_150_train": ("ADEChallengeData2016/images/training/ADE_train_00000001.jpg",
                         "ADEChallengeData2016/annotations/training/ADE_train_00000001.png",
                         {0: None, 1: "wall", 150: "flag"}),
    "ade20k_150_val": ("ADEChallengeData2016/images/validation/ADE_val_00000001.jpg",
                       "ADEChallengeData2016/annotations/validation/ADE_val_00000001.png",
                       {0: None, 3: "sky"}),
    "kitti_sem_seg_train": ("kitti/data_semantics/training/image_2/000000_10.png",
                            "kitti/data_semantics/training/semantic/000000_10.png",
                            {7: "road", 33: "bicycle", 0: None, 6: None, 26: "car"}),
    "bdd100k_sem_seg_train": ("bdd100k/images/10k/train/0a.jpg",
                              "bdd100k/labels/sem_seg/masks/train/0a.png",
                              {0: "road", 18: "bicycle", 255: None}),
    "bdd100k_sem_seg_val": ("bdd100k/images/10k/val/0b.jpg",
                            "bdd100k/labels/sem_seg/masks/val/0b.png", {13: "car", 255: None}),
    "gta5_all": ("gta5/images/00001.png", "gta5/labels/00001.png",
                 {7: "road", 24: "person", 4: None}),
    "mapillary_vistas_train": ("mapillary_vistas/training/images/a.jpg",
                               "mapillary_vistas/training/labels/a.png",
                               {0: "Bird", 13: "Road", 64: "Ego Vehicle", 65: None}),
    "mapillary_vistas_val": ("mapillary_vistas/validation/images/a.jpg",
                             "mapillary_vistas/validation/labels/a.png", {55: "Car", 65: None}),
    "lip_train": ("LIP/TrainVal_images/train_images/1_2.jpg",
                  "LIP/TrainVal_parsing_annotations/train_segmentations/1_2.png",
                  {0: "Background", 19: "Right-shoe", 255: None}),
    "lip_val": ("LIP/TrainVal_images/val_images/1_2.jpg",
                "LIP/TrainVal_parsing_annotations/val_segmentations/1_2.png", {13: "Face"}),
    "ccp_all": ("clothing-co-parsing/photos/0001.jpg", "clothing-co-parsing/labels_png/0001.png",
                {0: "null", 58: "wedges"}),
    "inria_aerial_train": ("AerialImageDataset/train/images/austin6.tif",
                           "AerialImageDataset/train/gt/austin6.tif",
                           {0: "not building", 255: "building"}),
    "inria_aerial_val": ("AerialImageDataset/train/images/austin1.tif",
                         "AerialImageDataset/train/gt/austin1.tif", {255: "building"}),
    "urban_3d_train": ("Urban_3D_Challenge/01-Provisional_Train/Inputs/JAX_Tile_004_RGB.tif",
                       "Urban_3D_Challenge/01-Provisional_Train/GT/JAX_Tile_004_GTL.tif",
                       {2: "ground", 6: "building", 65: None}),
    "urban_3d_val": ("Urban_3D_Challenge/02-Provisional_Test/Inputs/TAM_Tile_1_RGB.tif",
                     "Urban_3D_Challenge/02-Provisional_Test/GT/TAM_Tile_1_GTL.tif",
                     {6: "building"}),
    "urban_3d_test": ("Urban_3D_Challenge/03-Sequestered_Test/Inputs/TAM_Tile_2_RGB.tif",
                      "Urban_3D_Challenge/03-Sequestered_Test/GT/TAM_Tile_2_GTL.tif",
                      {2: "ground"}),
    "pratheepan_face": ("Face_Dataset/Pratheepan_Dataset/FacePhoto/a.jpg",
                        "Face_Dataset/Ground_Truth/GroundT_FacePhoto/a.png",
                        {0: "other", 255: "skin"}),
    "pratheepan_family": ("Face_Dataset/Pratheepan_Dataset/FamilyPhoto/a.jpg",
                          "Face_Dataset/Ground_Truth/GroundT_FamilyPhoto/a.png",
                          {255: "skin"}),
    "apolloscape_road01": ("apolloscape/road01_ins/ColorImage/Record001/Camera 5/a.jpg",
                           "apolloscape/road01_ins/Label/Record001/Camera 5/a_bin.png",
                           {17: "sky", 33: "car", 161: "car", 98: None, 255: None}),
    **{f"apolloscape_road0{n}": (f"apolloscape/road0{n}_ins/ColorImage/Record001/Camera 6/a.jpg",
                                 f"apolloscape/road0{n}_ins/Label/Record001/Camera 6/a_bin.png",
                                 {49: "road", 113: "vegetation"}) for n in (2, 3, 4)},
    "daimler_urban_train": ("daimler_urban/train/images/imgleft000000001.pgm",
                            "daimler_urban/train/labels/imgleft000000001.pgm",
                            {0: "ground", 4: "sky", 255: None}),
    "daimler_urban_test": ("daimler_urban/test/images/imgleft000000001.pgm",
                           "daimler_urban/test/labels/imgleft000000001.pgm", {2: "vehicle"}),
}  # fmt: skip
LISTED = {
    "voc_2012_sem_seg_train": ("VOC2012", "SegmentationClass", "Segmentation/train",
                               {0: "background", 20: "tvmonitor", 255: None}),
    "voc_2012_sem_seg_val": ("VOC2012", "SegmentationClass", "Segmentation/val", {15: "person"}),
    "voc_2012_sem_seg_trainaug": ("VOC2012", "SegmentationClassAug", "Segmentation/trainaug",
                                  {12: "dog"}),
    "pascal_context_59_train": ("VOC2010", "SegmentationClassContext",
                                "SegmentationContext/train",
                                {0: None, 1: "aeroplane", 59: "wood"}),
    "pascal_context_59_val": ("VOC2010", "SegmentationClassContext", "SegmentationContext/val",
                              {2: "bag"}),
    "pascal_context_60_train": ("VOC2010", "SegmentationClassContext",
                                "SegmentationContext/train",
                                {0: "background", 1: "aeroplane"}),
    "pascal_context_60_val": ("VOC2010", "SegmentationClassContext", "SegmentationContext/val",
                              {59: "wood"}),
}  # fmt: skip
# Rows with a test of their own in the files beside this one.
ELSEWHERE = {
    *(f"{kind}_{split}" for kind in ("shapes", "shapes_instance", "shapes_panoptic")
      for split in ("train", "val")),
    *(f"spacenet_roads_{city}" for city in ("vegas", "paris", "shanghai", "khartoum")),
    *(f"graz02_{kind}_{split}" for kind in ("bikes", "cars", "people")
      for split in ("train", "test")),
    "camvid_train", "camvid_val", "camvid_test", "dsb2018_train", "dsb2018_val",
    "bdd100k_instance_train", "bdd100k_instance_val", "stanford_background_all",
    "shapes_panoptic_train_separated", "shapes_panoptic_val_separated", "airsim_all",
    "sift_flow_trainval", "sift_flow_test", "msrc21_all", "lits_train", "lits_val",
}  # fmt: skip


def test_every_row_has_a_miniature():
    assert {row.name for row in ROWS} == {*SEMANTIC, *LISTED, *ELSEWHERE}


@pytest.mark.parametrize("name", SEMANTIC)
def test_folders(root, name):
    image, mask, values = SEMANTIC[name]
    put(root / image, IMAGE[:, :, 0] if image.endswith(".pgm") else IMAGE)
    put(root / mask, label(*values))
    check(name, values)


@pytest.mark.parametrize("name", LISTED)
def test_voc_layout(root, name):
    year, labels, stems, values = LISTED[name]
    devkit = root / "VOCdevkit" / year
    for stem in ("2008_000008", "2008_000015"):
        put(devkit / "JPEGImages" / f"{stem}.jpg", IMAGE)
        put(devkit / labels / f"{stem}.png", label(*values))
    put_text(devkit / "ImageSets" / f"{stems}.txt", "2008_000015\n")
    check(name, values)
    assert load_dataset(name)[0]["file_name"].endswith("2008_000015.jpg")


@pytest.mark.parametrize("name", ["inria_aerial_val", "pratheepan_face"])
def test_black_and_white_masks_in_rgb(root, name):
    image, mask, _ = SEMANTIC[name]
    put(root / image, IMAGE)
    put(root / mask, np.repeat(label(0, 255)[:, :, None], 3, axis=2))
    classes = MetadataCatalog.get(name).stuff_classes
    check(name, {0: classes[0], 255: classes[1]})
