"""Every row reads a miniature of its published layout, written here without the reader's help."""

from __future__ import annotations

import json
from pathlib import Path

import seg_plugins
from seg_plugins.data import DatasetError, SemanticMapper, build_mapper
from seg_plugins.data.datasets.catalogue import load_dataset, register_datasets
from seg_plugins.data.datasets.class_table import load_class_table
from seg_plugins.data.datasets.rows import ROWS
from seg_plugins.engine.consistency import check_datasets
from seg_plugins.evaluation import build_evaluator

import cv2
import numpy as np
import pytest
import torch
from cityscapesscripts.helpers.labels import labels as cityscapes_labels
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, load_sem_seg
from detectron2.data.datasets.coco_panoptic import merge_to_panoptic

IMAGE = np.random.default_rng(0).integers(0, 255, (6, 8, 3)).astype(np.uint8)


def put(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def put_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def label(*values: int) -> np.ndarray:
    """A 6x8 label whose columns hold the values in turn."""
    return np.tile(np.resize(np.array(values, np.uint8), 8), (6, 1))


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
# Rows with a test of their own below or in another file.
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


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return tmp_path


def check(name: str, values: dict[int, str | None]) -> None:
    (record,) = load_dataset(name)
    metadata = MetadataCatalog.get(name)
    ids = metadata.sem_seg_loading_fn(record["sem_seg_file_name"])
    names = [metadata.stuff_classes[i] if i < len(metadata.stuff_classes) else None for i in ids[0]]
    assert names == [list(values.values())[i % len(values)] for i in range(8)]
    assert {int(i) for i in ids.ravel()} - set(range(len(metadata.stuff_classes))) <= {
        metadata.ignore_label
    }
    # The mapper reads the same as the evaluator.
    sample = SemanticMapper(is_train=True)(record)
    assert np.array_equal(sample["sem_seg"].numpy(), ids)
    assert sample["image"].shape == (3, 6, 8)


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


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_camvid_lists_carry_a_foreign_prefix(root, split):
    put(root / f"CamVid/{split}/a.png", IMAGE)
    put(root / f"CamVid/{split}annot/a.png", label(0, 10, 11))
    put_text(
        root / f"CamVid/{split}.txt",
        f"/SegNet/CamVid/{split}/a.png /SegNet/CamVid/{split}annot/a.png\n",
    )
    check(f"camvid_{split}", {0: "Sky", 10: "Bicyclist", 11: None})


def test_camvid_on_disk(shared_data, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(shared_data))
    assert len(load_dataset("camvid_train")) == 367
    assert len(load_dataset("camvid_val")) == 101


def test_stanford_background_text_labels(root):
    put(root / "iccv09Data/images/0000047.jpg", IMAGE)
    row = "0 7 -1 3 0 7 -1 3\n"
    put_text(root / "iccv09Data/labels/0000047.regions.txt", row * 6)
    check("stanford_background_all", {0: "sky", 7: "foreground object", -1: None, 3: "grass"})


def test_sift_flow(root):
    folder = root / "SiftFlowDataset"
    put(folder / "Images/coast/a.jpg", IMAGE)
    put(folder / "SemanticLabelsPNG/coast/a.png", label(0, 1, 33))
    for split in ("trainval", "test"):
        put_text(folder / f"{split}.txt", "coast/a\n")
        check(f"sift_flow_{split}", {0: None, 1: "awning", 33: "window"})


@pytest.mark.parametrize("city", ["2_Vegas", "3_Paris", "4_Shanghai", "5_Khartoum"])
def test_spacenet_roads(root, city):
    folder = root / f"spacenet_roads/AOI_{city}_Roads_Train"
    for number in (1, 2):
        stem = f"RGB-PanSharpen_AOI_{city}_img{number}"
        put(folder / f"RGB-PanSharpen/{stem}.tif", IMAGE.astype(np.uint16) * 8)
        put(folder / f"labels_png/{stem}.png", label(0, 1))
    put_text(folder / "labelled.txt", f"{stem}\n")
    name = f"spacenet_roads_{city[2:].lower()}"
    check(name, {0: "not road", 1: "road"})
    sample = SemanticMapper(is_train=True, image_format="raw")(load_dataset(name)[0])
    assert sample["image"][0, 0].tolist() == (IMAGE[0, :, 2] * 8.0).tolist()


def test_msrc21_colours(root):
    folder = root / "MSRC_ObjCategImageDatabase_v2"
    put(folder / "Images/1_1_s.bmp", IMAGE)
    colours = np.array([(128, 0, 0), (0, 0, 0), (128, 64, 128), (64, 0, 0)], np.uint8)
    put(folder / "GroundTruth/1_1_s_GT.bmp", colours[label(0, 1, 2, 3)][..., ::-1])
    check("msrc21_all", {0: "building", 1: None, 2: "road", 3: None})


def test_airsim_recordings(root):
    """Colours of the ids 0, 1 and 255 of seg_rgbs.txt, and black, which is none."""
    folder = root / "airsim/2018-02-09-15-30-12"
    rgb = np.array([(55, 181, 57), (153, 108, 6), (43, 47, 206), (0, 0, 0)], np.uint8)
    taken = {"img_0_0_111": IMAGE, "img_0_5_112": rgb[label(0, 1, 2, 3)][..., ::-1],
             "img_Drone1_front_0_113": IMAGE, "img_0_2_114": IMAGE}  # fmt: skip
    for name, pixels in taken.items():
        put(folder / f"images/{name}.png", pixels)
    rows = ["POS_X\tImageFile", "1.5\t" + ";".join(f"{name}.png" for name in taken)]
    put_text(folder / "airsim_rec.txt", "\n".join(rows) + "\n")
    check("airsim_all", {0: "object 0", 1: "object 1", 255: "object 255", 256: None})
    (record,) = load_dataset("airsim_all")
    assert Path(record["file_name"]).name == "img_0_0_111.png"
    for wrong in ("img_0_5_112.png", "../img_0_0_1.png;../img_0_5_1.png", ""):
        put_text(folder / "airsim_rec.txt", f"{rows[0]}\n1.5\t{wrong}\n")
        with pytest.raises(DatasetError, match=r"airsim_rec\.txt, line 2: no scene with its seg"):
            load_dataset("airsim_all")


@pytest.mark.parametrize("name", ["inria_aerial_val", "pratheepan_face"])
def test_black_and_white_masks_in_rgb(root, name):
    image, mask, _ = SEMANTIC[name]
    put(root / image, IMAGE)
    put(root / mask, np.repeat(label(0, 255)[:, :, None], 3, axis=2))
    classes = MetadataCatalog.get(name).stuff_classes
    check(name, {0: classes[0], 255: classes[1]})


def test_separated_panoptic_is_detectron2s(tmp_path):
    """Detectron2's own loader on the same files, its "stuff" PNGs made here of the labels."""
    name = "shapes_panoptic_val_separated"
    ours = load_dataset(name)
    metadata = MetadataCatalog.get(name)
    things, stuff = range(6), (6, 7)
    for record in ours[:5]:
        ids = cv2.imread(record["sem_seg_file_name"], cv2.IMREAD_UNCHANGED)
        lut = np.full(256, 255, np.uint8)
        lut[list(things)] = 0
        lut[list(stuff)] = 1, 2
        put(tmp_path / "stuff" / Path(record["sem_seg_file_name"]).name, lut[ids])
    instances = json.loads(Path(metadata.json_file).read_text())
    instances["images"] = instances["images"][:5]
    kept = {image["id"] for image in instances["images"]}
    instances["annotations"] = [a for a in instances["annotations"] if a["image_id"] in kept]
    (tmp_path / "instances.json").write_text(json.dumps(instances))
    images = tmp_path / "images"
    images.mkdir()
    for record in ours[:5]:
        (images / Path(record["file_name"]).name).symlink_to(record["file_name"])
    peer = merge_to_panoptic(
        load_coco_json(str(tmp_path / "instances.json"), str(images), "ill_peer"),
        load_sem_seg(str(tmp_path / "stuff"), str(images), image_ext="png"),
    )
    MetadataCatalog.remove("ill_peer")
    assert len(peer) == 5
    cfg = seg_plugins.get_cfg()
    cfg.INPUT.MASK_FORMAT, cfg.INPUT.MIN_SIZE_TRAIN = "bitmask", (0,)
    cfg.DATASETS.TRAIN = (name,)
    assert metadata.stuff_classes == ["things", "stripes", "speckle"]
    assert metadata.thing_dataset_id_to_contiguous_id == {i + 1: i for i in things}
    assert metadata.stuff_dataset_id_to_contiguous_id == {0: 0, 7: 1, 8: 2}
    mapper = build_mapper(cfg, True)
    for a, b in zip(ours, peer, strict=False):
        one, other = (mapper(r, np.random.default_rng(0)) for r in (a, b))
        assert torch.equal(one["sem_seg"], other["sem_seg"])
        assert torch.equal(one["image"], other["image"])
        found, expected = one["instances"], other["instances"]
        assert torch.equal(found.gt_boxes.tensor, expected.gt_boxes.tensor)
        assert torch.equal(found.gt_classes, expected.gt_classes)
        assert torch.equal(found.gt_masks.tensor, expected.gt_masks.tensor)


def test_lits_slices(root):
    for split in ("train", "val"):
        path = root / f"lits/slices/{split}/volume-0_0001.npy"
        path.parent.mkdir(parents=True)
        np.save(path, np.linspace(-1000, 1000, 48, dtype=np.float32).reshape(6, 8))
        put(root / f"lits/labels/{split}/volume-0_0001.png", label(0, 1, 2))
        (record,) = load_dataset(f"lits_{split}")
        sample = SemanticMapper(is_train=True, image_format="raw")(record)
        assert sample["image"].shape == (1, 6, 8)
        assert sample["image"].min() == -1000  # Hounsfield units come through
        assert sample["sem_seg"][0, :3].tolist() == [0, 1, 2]


def evaluate_truth(name: str) -> dict[str, dict[str, float]]:
    """Results of a model that predicts the labels themselves."""
    cfg = seg_plugins.get_cfg()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (name,), (name,)
    cfg.MODEL.META_ARCHITECTURE = "UNet"
    classes = len(MetadataCatalog.get(name).stuff_classes)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = classes
    check_datasets(cfg)  # counts as a semantic dataset
    cfg.INPUT.FORMAT, cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = "raw", (0,), "none"
    mapper = build_mapper(cfg, True)
    assert isinstance(mapper, SemanticMapper)
    evaluator = build_evaluator(cfg, name)
    evaluator.reset()
    for record in load_dataset(name):
        truth = mapper(record)["sem_seg"]
        scores = torch.nn.functional.one_hot(truth, classes).permute(2, 0, 1).float()
        evaluator.process([record], [{"sem_seg": scores}])
    return evaluator.evaluate()


def test_isbi2012_is_scored_with_its_own_measures(root):
    cells = np.full((12, 12), 255, np.uint8)
    cells[6] = 0
    put(root / "isbi2012/train/image/21.png", cells)
    put(root / "isbi2012/train/label/21.png", cells)
    results = evaluate_truth("isbi2012_val")
    assert results["sem_seg"]["mIoU"] == 100
    assert {v for k, v in results["em"].items() if "Error" in k} == {0.0}


def test_lits_is_scored_by_volume(root):
    for number, values in (("3_0001", (0, 1)), ("3_0002", (2, 1)), ("4_0001", (0, 1))):
        path = root / f"lits/slices/val/volume-{number}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.zeros((6, 8), np.float32))
        put(root / f"lits/labels/val/volume-{number}.png", label(*values))
    results = evaluate_truth("lits_val")
    assert results["volume"]["mDice"] == 100
    assert results["volume"]["Dice-tumour"] == 100


def test_dsb2018_masks_become_instances(root):
    for number in range(5):
        folder = root / f"dsb2018/stage1_train/id{number}"
        put(folder / f"images/id{number}.png", IMAGE)
        mask = np.zeros((6, 8), np.uint8)
        mask[1:3, 2:6] = 255
        put(folder / "masks/a.png", mask)
        put(folder / "masks/b.png", 255 - mask)
    train, val = load_dataset("dsb2018_train"), load_dataset("dsb2018_val")
    assert (len(train), len(val)) == (4, 1)
    assert not {r["file_name"] for r in train} & {r["file_name"] for r in val}
    first = val[0]["annotations"][0]
    assert first["bbox"] == [2, 1, 4, 2]
    assert [a["category_id"] for a in val[0]["annotations"]] == [0, 0]


def test_bdd100k_bitmasks(root):
    bgra = np.zeros((6, 8, 4), np.uint8)  # file channels: category, flags, instance (2 bytes)
    bgra[0, :3, 2], bgra[0, :3, 3] = 3, 7  # a car
    bgra[2, :5, 2], bgra[2, :5, 1], bgra[2, :5, 3] = 1, 2, 8  # a crowd of pedestrians
    bgra[4, :, 2], bgra[4, :, 1], bgra[4, :, 3] = 4, 1, 9  # ignored
    for split in ("train", "val"):
        put(root / f"bdd100k/images/10k/{split}/a.jpg", IMAGE)
        put(root / f"bdd100k/labels/ins_seg/bitmasks/{split}/a.png", bgra)
        (record,) = load_dataset(f"bdd100k_instance_{split}")
        found = {(a["category_id"], a["iscrowd"], *a["bbox"]) for a in record["annotations"]}
        assert found == {(2, 0, 0, 0, 3, 1), (0, 1, 0, 2, 5, 1)}


@pytest.mark.parametrize("kind", ["bikes", "cars", "people"])
def test_graz02_objects_are_what_is_seen_of_them(root, kind):
    bgr = np.zeros((6, 8, 3), np.uint8)
    bgr[1:3, 2:6, 2] = 255  # red: seen
    bgr[3:5, 2:6, 1] = 255  # green: hidden
    hidden = np.zeros_like(bgr)
    hidden[0, 0, 1] = 255
    for stem in ("a_001", "a_002"):
        put(root / f"ig02/{kind}/{stem}.image.png", IMAGE)
        put(root / f"ig02/{kind}/{stem}.mask.0.png", bgr)
        put(root / f"ig02/{kind}/{stem}.mask.1.png", hidden)
    put_text(root / f"ig02/{kind}_train.txt", "a_001\n")
    put_text(root / f"ig02/{kind}_test.txt", "a_002\n")
    for split, stem in (("train", "a_001"), ("test", "a_002")):
        (record,) = load_dataset(f"graz02_{kind}_{split}")
        assert record["file_name"].endswith(f"{kind}/{stem}.image.png")
        assert (record["height"], record["width"]) == (6, 8)
        assert [a["bbox"] for a in record["annotations"]] == [[2, 1, 4, 2]]
    put(root / f"ig02/{kind}/a_001.mask.0.png", bgr[:3])
    with pytest.raises(DatasetError, match=r"a_001\.mask\.0\.png: size \(3, 8\)"):
        load_dataset(f"graz02_{kind}_train")


def test_cityscapes_table_is_the_official_one():
    classes = load_class_table("cityscapes").classes
    official = {lab.trainId: lab for lab in cityscapes_labels if 0 <= lab.trainId < 19}
    assert len(classes) == 19
    for i, c in enumerate(classes):
        assert (c.name, c.color, c.is_thing) == (
            official[i].name, official[i].color, official[i].hasInstances
        )  # fmt: skip


@pytest.mark.parametrize("name", ["kitti", "gta5"])
def test_tables_with_cityscapes_ids_map_all_of_them(name):
    classes = enumerate(load_class_table(name).classes)
    values = {value: i for i, c in classes for value in c.label_values}
    assert values == {lab.id: lab.trainId for lab in cityscapes_labels if 0 <= lab.trainId < 19}


def test_coco_stuff_counts_of_the_paper():
    classes = load_class_table("coco_stuff").classes
    assert sum(c.is_thing for c in classes) == 80
    assert sum(not c.is_thing for c in classes) == 91


def test_registration_is_idempotent_and_leaves_detectron2_its_names():
    before = len(DatasetCatalog.list())
    register_datasets()
    assert len(DatasetCatalog.list()) == before
    assert not {row.name for row in ROWS} & {"coco_2017_train", "cityscapes_fine_sem_seg_train"}


def test_detectron2s_own_datasets_get_their_colours():
    official = {lab.trainId: list(lab.color) for lab in cityscapes_labels if 0 <= lab.trainId < 19}
    colours = MetadataCatalog.get("cityscapes_fine_sem_seg_val").stuff_colors
    assert colours == [official[i] for i in range(19)]
    assert len(MetadataCatalog.get("ade20k_sem_seg_train").stuff_colors) == 150


def test_a_missing_dataset_names_the_file_and_the_root(root):
    with pytest.raises(DatasetError, match=r"camvid_train.*train\.txt.*DETECTRON2_DATASETS"):
        DatasetCatalog.get("camvid_train")


def test_lists_cannot_leave_the_folder(root):
    listed = root / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"
    for path in ("../../../secret", "/etc/passwd", "C:/secret"):
        put_text(listed, f"{path}\n")
        with pytest.raises(DatasetError, match=r"leaves the dataset's folder"):
            DatasetCatalog.get("voc_2012_sem_seg_val")


def test_class_tables_are_complete():
    folder = Path(__file__).parents[3] / "seg_plugins/data/datasets/class_tables"
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text())
        table = load_class_table(path.stem)
        assert content["source"], path
        assert isinstance(content["verified"], bool), path
        assert len(set(table.names)) == len(table.names), path
        assert len(set(map(tuple, table.colors))) >= len(table.names) // 2, path
