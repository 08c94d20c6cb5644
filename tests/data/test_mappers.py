"""The mappers: equal to Detectron2's where it does the same, consistent after augmentation."""

from __future__ import annotations

import pickle

import seg_plugins
from seg_plugins.data import (
    DatasetError,
    InstanceMapper,
    PanopticMapper,
    SemanticMapper,
    build_mapper,
)
from seg_plugins.data.augmentations import (
    Content,
    Crop,
    Flip,
    ResizeShortestEdge,
    ScaleJitter,
    Turn,
)
from seg_plugins.data.decoded_cache import DecodedCache
from seg_plugins.data.elastic import ElasticDeformation
from seg_plugins.data.geometry import Geometry
from seg_plugins.data.photometric import Blur, ColorJitter, Noise

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from torch.utils.data import DataLoader, Dataset

GEOMETRY = (ResizeShortestEdge((96, 192), 400, as_range=True), Crop((80, 100)), Flip(), Turn())


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return a == b


@pytest.fixture(scope="module")
def semantic():
    return DatasetCatalog.get("shapes_val")


@pytest.fixture(scope="module")
def instances():
    return DatasetCatalog.get("shapes_instance_val")


@pytest.fixture(scope="module")
def panoptic():
    return DatasetCatalog.get("shapes_panoptic_val")


@pytest.mark.parametrize("edge", [100, 128, 200])
def test_semantic_equals_detectron2(semantic, edge):
    """Same pixels and labels for resize and flip, where neither draws anything."""
    ours = SemanticMapper(
        is_train=True, augmentations=[ResizeShortestEdge((edge,), 400), Flip(1.0)]
    )
    peer = DatasetMapper(
        True,
        augmentations=[T.ResizeShortestEdge((edge,), 400, "choice"), T.RandomFlip(1.0)],
        image_format="BGR",
    )
    for record in semantic[:5]:
        a, b = ours(record, rng()), peer(record)
        assert torch.equal(a["image"], b["image"])
        # Where a pixel falls between two neighbours, either of them is right.
        assert (a["sem_seg"] != b["sem_seg"]).float().mean() < 2e-3
        assert a["image"].is_contiguous()


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_instances_equal_detectron2(instances, mask_format):
    ours = InstanceMapper(
        is_train=True,
        augmentations=[ResizeShortestEdge((150,), 400), Flip(1.0)],
        mask_format=mask_format,
    )
    peer = DatasetMapper(
        True,
        augmentations=[T.ResizeShortestEdge((150,), 400, "choice"), T.RandomFlip(1.0)],
        image_format="BGR",
        use_instance_mask=True,
        instance_mask_format=mask_format,
    )
    for record in instances[:10]:
        a, b = ours(record, rng()), peer(record)
        a, b = a["instances"], b["instances"]
        assert torch.equal(a.gt_boxes.tensor, b.gt_boxes.tensor)
        assert torch.equal(a.gt_classes, b.gt_classes)
        if mask_format == "bitmask":
            assert torch.equal(a.gt_masks.tensor, b.gt_masks.tensor)
        else:
            for p, q in zip(a.gt_masks.polygons, b.gt_masks.polygons, strict=True):
                assert all(np.allclose(x, y) for x, y in zip(p, q, strict=True))


def test_boxes_enclose_their_masks_after_any_augmentation(instances):
    mapper = InstanceMapper(is_train=True, augmentations=GEOMETRY, mask_format="bitmask")
    polygons = InstanceMapper(is_train=True, augmentations=GEOMETRY, mask_format="polygon")
    seen = 0
    for seed, record in enumerate(instances):
        found = mapper(record, rng(seed))["instances"]
        assert torch.equal(found.gt_boxes.tensor, found.gt_masks.get_bounding_boxes().tensor)
        exact = polygons(record, rng(seed))["instances"]
        height, width = exact.image_size
        boxes = exact.gt_boxes.tensor
        assert (boxes >= 0).all()
        assert (boxes[:, 2] <= width).all()
        assert (boxes[:, 3] <= height).all()
        seen += len(found)
    assert seen > 100


def test_run_lengths_and_polygons_give_the_same_masks(instances):
    """Without scaling, a polygon and the run lengths of its mask are the same instance."""
    import pycocotools.mask as coco_mask

    mapper = InstanceMapper(
        is_train=True, augmentations=[Crop((90, 70)), Turn(), Flip()], mask_format="bitmask"
    )
    for seed, record in enumerate(instances[:20]):
        encoded = []
        for annotation in record["annotations"]:
            segmentation = annotation["segmentation"]
            if isinstance(segmentation, list):
                rles = coco_mask.frPyObjects(segmentation, 128, 128)
                segmentation = coco_mask.merge(rles)
            encoded.append({**annotation, "segmentation": segmentation})
        a = mapper(record, rng(seed))["instances"]
        b = mapper({**record, "annotations": encoded}, rng(seed))["instances"]
        assert torch.equal(a.gt_masks.tensor, b.gt_masks.tensor)
        assert torch.equal(a.gt_boxes.tensor, b.gt_boxes.tensor)


def test_panoptic_label_and_instances_are_one_picture(panoptic):
    """Every thing pixel of the label belongs to one instance of its class, crowds excepted."""
    mapper = PanopticMapper(is_train=True, thing_ids=range(6), augmentations=GEOMETRY)
    semantic = SemanticMapper(is_train=True, augmentations=GEOMETRY)
    for seed, record in enumerate(panoptic[:30]):
        sample = mapper(record, rng(seed))
        label, found = sample["sem_seg"], sample["instances"]
        assert torch.equal(label, semantic(record, rng(seed))["sem_seg"])
        drawn = torch.full_like(label, -1)
        for mask, class_id in zip(found.gt_masks.tensor, found.gt_classes, strict=True):
            assert (drawn[mask] == -1).all()
            drawn[mask] = class_id
        crowd = any(s["iscrowd"] for s in record["segments_info"])
        agree = (drawn == label) | (drawn == -1)
        assert agree.all()
        if not crowd:
            assert torch.equal(drawn >= 0, label < 6)


def test_panoptic_fpn_label_collapses_the_things(panoptic):
    plain = PanopticMapper(is_train=True, thing_ids=range(6))
    merged = PanopticMapper(is_train=True, thing_ids=range(6), stuff_ids=(6, 7))
    a, b = plain(panoptic[0], rng())["sem_seg"], merged(panoptic[0], rng())["sem_seg"]
    assert torch.equal(b == 0, a < 6)
    assert torch.equal(b == 1, a == 6)
    assert torch.equal(b == 2, a == 7)
    assert torch.equal(b == 255, a == 255)


def test_elastic_deformation_moves_instances_with_their_pixels(instances, panoptic):
    """Masks and boxes of all three tasks are those of the deformed label."""
    shared = {"is_train": True, "augmentations": GEOMETRY, "elastic": ElasticDeformation(5.0)}
    separate = InstanceMapper(mask_format="bitmask", **shared)
    together = PanopticMapper(thing_ids=range(6), **shared)
    semantic = SemanticMapper(**shared)
    stiff = InstanceMapper(is_train=True, augmentations=GEOMETRY, mask_format="bitmask")
    bent = 0
    for seed, (a, b) in enumerate(zip(instances[:30], panoptic[:30], strict=True)):
        one, other = separate(a, rng(seed)), together(b, rng(seed))
        label = semantic(b, rng(seed))["sem_seg"]
        assert torch.equal(other["sem_seg"], label)
        for sample in (one, other):
            found = sample["instances"]
            assert found.gt_masks.tensor.flatten(1).any(dim=1).all()
            assert torch.equal(found.gt_boxes.tensor, found.gt_masks.get_bounding_boxes().tensor)
        for mask, class_id in zip(
            other["instances"].gt_masks.tensor, other["instances"].gt_classes, strict=True
        ):
            assert (label[mask] == class_id).all()
        plain = stiff(a, rng(seed))["instances"]
        if len(plain) == len(one["instances"]):
            bent += not torch.equal(plain.gt_masks.tensor, one["instances"].gt_masks.tensor)
    assert bent > 10


def test_masks_are_deformed_as_the_pixels_are(tmp_path):
    """A white square on black: its mask after the deformation is where the image is white."""
    picture = np.zeros((60, 80, 3), np.uint8)
    picture[20:45, 25:60] = 255
    assert cv2.imwrite(str(tmp_path / "a.png"), picture)
    corners = [25, 20, 60, 20, 60, 45, 25, 45]
    annotation = {"bbox": [25, 20, 60, 45], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    mapper = InstanceMapper(
        is_train=True, elastic=ElasticDeformation(6.0), mask_format="bitmask",
        augmentations=[Flip()],
    )  # fmt: skip
    record = {"file_name": str(tmp_path / "a.png")}
    for seed in range(10):
        sample = mapper({**record, "annotations": [annotation | {"segmentation": [corners]}]},
                        rng(seed))  # fmt: skip
        (mask,) = sample["instances"].gt_masks.tensor
        assert (mask == (sample["image"][0] > 127)).float().mean() > 0.99
        assert mask.sum() > 300


def test_an_ignore_label_of_16_bits(panoptic):
    mapper = PanopticMapper(is_train=True, thing_ids=range(6), ignore_label=65535)
    plain = PanopticMapper(is_train=True, thing_ids=range(6))
    wide, narrow = (m(panoptic[0], rng())["sem_seg"] for m in (mapper, plain))
    assert torch.equal(torch.where(narrow == 255, 65535, narrow), wide)
    assert (wide == 65535).any()


def test_boxes_alone(instances):
    record = {**instances[0], "annotations": [dict(a) for a in instances[0]["annotations"]]}
    for annotation in record["annotations"]:
        del annotation["segmentation"]
    found = InstanceMapper(is_train=True, mask_format="none")(record, rng())["instances"]
    assert not found.has("gt_masks")
    assert len(found) == sum(not a["iscrowd"] for a in record["annotations"])
    with pytest.raises(DatasetError, match=r"0000\.png: an annotation has no segm.*FORMAT none"):
        InstanceMapper(is_train=True)(record)


def test_panoptic_refuses_segments_that_are_not_listed(panoptic):
    record = {**panoptic[0], "segments_info": panoptic[0]["segments_info"][1:]}
    with pytest.raises(DatasetError, match=r"0000\.png: segments .* are not in segments_info"):
        PanopticMapper(is_train=True, thing_ids=range(6))(record, rng())


class _Stream(Dataset):
    """Samples by (seed, position), as the engine draws them."""

    def __init__(self, records, mapper):
        self.records, self.mapper = records, mapper

    def __len__(self):
        return 12

    def __getitem__(self, position):
        sample = self.mapper(self.records[position % 5], np.random.default_rng([7, position]))
        return sample["image"], sample["sem_seg"]


def test_samples_do_not_depend_on_the_number_of_workers(semantic):
    mapper = SemanticMapper(
        is_train=True,
        augmentations=[*GEOMETRY[:1], Crop((80, 80), max_class_share=0.6, rare_class_chance=0.5)],
        photometric=[ColorJitter(), Blur(2.0), Noise(8.0)],
        elastic=ElasticDeformation(4.0),
    )
    streams = [
        list(DataLoader(_Stream(semantic, mapper), batch_size=None, num_workers=n))
        for n in (0, 1, 3)
    ]
    for other in streams[1:]:
        for a, b in zip(streams[0], other, strict=True):
            assert torch.equal(a[0], b[0])
            assert torch.equal(a[1], b[1])
    assert not torch.equal(streams[0][0][0], streams[0][5][0])  # the same record, another draw


def test_mappers_and_records_survive_pickling(semantic, instances, panoptic):
    """Workers that are spawned get them that way."""
    cases = (
        (SemanticMapper(is_train=True, augmentations=GEOMETRY), semantic[0]),
        (InstanceMapper(is_train=True, augmentations=GEOMETRY), instances[0]),
        (PanopticMapper(is_train=True, thing_ids=range(6), augmentations=GEOMETRY), panoptic[0]),
    )
    for mapper, record in cases:
        again, same_record = pickle.loads(pickle.dumps((mapper, record)))
        assert torch.equal(again(same_record, rng())["image"], mapper(record, rng())["image"])


def test_without_a_generator_numpy_seeds_the_sample(semantic):
    mapper = SemanticMapper(is_train=True, augmentations=GEOMETRY)
    np.random.seed(3)
    first, second = mapper(semantic[0]), mapper(semantic[0])
    np.random.seed(3)
    again = mapper(semantic[0])
    assert all(same(first[key], again[key]) for key in first)
    assert not torch.equal(first["image"], second["image"])


def test_the_dict_handed_in_is_not_changed(semantic, instances, panoptic):
    mappers = (
        SemanticMapper(is_train=True),
        InstanceMapper(is_train=True, mask_format="bitmask"),
        PanopticMapper(is_train=True, thing_ids=range(6)),
    )
    for mapper, records in zip(mappers, (semantic, instances, panoptic), strict=True):
        before = repr(records[0])
        mapper(records[0], rng())
        assert repr(records[0]) == before


def test_category_limit_holds_where_it_can(semantic):
    crop = Crop((64, 64), max_class_share=0.7)
    free = Crop((64, 64))
    shares = {}
    for name, augmentation in (("limited", crop), ("free", free)):
        mapper = SemanticMapper(is_train=True, augmentations=[augmentation])
        labels = [mapper(r, rng(i))["sem_seg"] for i, r in enumerate(semantic)]
        shares[name] = np.mean(
            [np.bincount(v[v != 255]).max() > 0.7 * (v != 255).sum() for v in labels]
        )
    assert shares["limited"] < 0.6 * shares["free"]


@pytest.mark.parametrize(
    ("kind", "size", "low", "high"),
    [
        ("absolute", (64, 300), (64, 128), (64, 128)),
        ("relative", (0.5, 0.25), (64, 32), (64, 32)),
        ("relative_range", (0.5, 0.25), (64, 32), (128, 128)),
        ("absolute_range", (40, 60), (40, 40), (60, 60)),
    ],
)
def test_crop_sizes_of_every_kind(semantic, kind, size, low, high):
    mapper = SemanticMapper(is_train=True, augmentations=[Crop(size, kind)])
    sizes = [tuple(mapper(semantic[0], rng(i))["image"].shape[1:]) for i in range(30)]
    assert all(np.greater_equal(s, low).all() and np.less_equal(s, high).all() for s in sizes)
    assert (len(set(sizes)) > 5) == kind.endswith("range")


def test_rare_classes_are_seen_as_often_as_common_ones():
    """A class on 16 of 40,000 pixels: every second crop holds it, against one in 40 by chance."""
    label = np.zeros((200, 200), np.uint8)
    label[90:94, 50:54] = 1

    def seen(chance: float) -> float:
        crop = Crop((32, 32), rare_class_chance=chance)
        crops = [
            crop(rng(i), Geometry.identity(label.shape), Content(label)).apply_label(label)
            for i in range(300)
        ]
        return np.mean([(c == 1).any() for c in crops])

    assert 0.4 < seen(1.0) < 0.65
    assert seen(0.0) < 0.1


def test_scale_jitter_fits_the_target_size(semantic):
    for factor in (0.5, 1.0, 2.0):
        mapper = SemanticMapper(
            is_train=True, augmentations=[ScaleJitter((64, 200), (factor, factor))]
        )
        assert mapper(semantic[0], rng())["image"].shape[1:] == (64 * factor, 64 * factor)


def test_sizes_that_differ_are_named(semantic, tmp_path):
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((64, 128), np.uint8))
    record = {**semantic[0], "sem_seg_file_name": str(tmp_path / "small.png")}
    with pytest.raises(DatasetError, match=r"small\.png: the label is 64x128 .* 128x128"):
        SemanticMapper(is_train=True)(record)
    with pytest.raises(DatasetError, match=r"0000\.png: the image is 128x128 .* says 9x128"):
        SemanticMapper(is_train=True)({**semantic[0], "height": 9, "width": 128})


def test_run_lengths_need_bitmasks(instances):
    crowd = next(
        a for r in instances for a in r["annotations"] if isinstance(a["segmentation"], dict)
    )
    record = {**instances[0], "annotations": [{**crowd, "iscrowd": 0}]}
    with pytest.raises(DatasetError, match=r"0000\.png.*MASK_FORMAT.*'bitmask'"):
        InstanceMapper(is_train=True, mask_format="polygon")(record)


def test_exact_bounds_of_a_clipped_polygon():
    """A triangle that leaves the image: its box is that of the part inside, by hand."""
    record = {
        "file_name": DatasetCatalog.get("shapes_val")[0]["file_name"],
        "annotations": [
            {
                "bbox": [100, 20, 28, 40],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": 2,
                "segmentation": [[100, 20, 128, 20, 100, 48]],
            }
        ],
    }
    mapper = InstanceMapper(is_train=True, augmentations=[_Window(0, 0, 128, 110)])
    (box,) = mapper(record, rng())["instances"].gt_boxes.tensor.tolist()
    assert box == [100, 20, 110, 48]
    mapper = InstanceMapper(is_train=True, augmentations=[_Window(30, 0, 98, 110)])
    (box,) = mapper(record, rng())["instances"].gt_boxes.tensor.tolist()
    assert box == [100, 0, 110, 18]
    mapper = InstanceMapper(is_train=True, augmentations=[_Window(0, 0, 128, 100)])
    assert len(mapper(record, rng())["instances"]) == 0


class _Window:
    """Always the same crop."""

    def __init__(self, *window):
        self.window = window

    def __call__(self, rng, geometry, content):
        return geometry.crop(*self.window)


def test_the_cache_gives_the_same_sample_and_notices_changes(semantic, tmp_path):
    plain = SemanticMapper(is_train=True, augmentations=GEOMETRY)
    cache = DecodedCache(tmp_path / "cache", max_bytes=1 << 20)
    cached = SemanticMapper(is_train=True, augmentations=GEOMETRY, cache=cache)
    for _ in range(2):
        a, b = plain(semantic[0], rng()), cached(semantic[0], rng())
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["sem_seg"], b["sem_seg"])
    files = list((tmp_path / "cache").rglob("*.npy"))
    assert len(files) == 2
    files[0].write_bytes(b"damaged")
    assert torch.equal(cached(semantic[0], rng())["image"], plain(semantic[0], rng())["image"])
    picture = tmp_path / "a.png"
    record = {"file_name": str(picture)}
    mapper = SemanticMapper(is_train=False, cache=cache)
    cv2.imwrite(str(picture), np.zeros((4, 4, 3), np.uint8))
    assert mapper(record)["image"].max() == 0
    cv2.imwrite(str(picture), np.full((5, 5, 3), 9, np.uint8))
    assert mapper(record)["image"].max() == 9


@pytest.mark.parametrize(
    ("dataset", "files"), [("shapes_instance_train", 1), ("shapes_panoptic_train", 2)]
)
def test_every_task_reads_from_the_cache(dataset, files, tmp_path):
    cfg = seg_plugins.get_cfg()
    cfg.DATASETS.TRAIN = (dataset,)
    cfg.INPUT.MIN_SIZE_TRAIN = (96,)
    cfg.INPUT.MASK_FORMAT = "bitmask"
    record = DatasetCatalog.get(dataset)[0]
    plain = build_mapper(cfg, True)(record, rng())
    cfg.INPUT.DECODED_CACHE.FOLDER = str(tmp_path)
    assert build_mapper(cfg, False).cache is None
    for _ in range(2):
        cached = build_mapper(cfg, True)(record, rng())
        assert torch.equal(cached["image"], plain["image"])
        found, expected = cached["instances"], plain["instances"]
        assert torch.equal(found.gt_masks.tensor, expected.gt_masks.tensor)
        assert torch.equal(found.gt_boxes.tensor, expected.gt_boxes.tensor)
        assert len(list(tmp_path.rglob("*.npy"))) == files


@pytest.mark.filterwarnings("error:The given NumPy array is not writable")
def test_a_sample_owns_its_memory(tmp_path):
    """One channel, no augmentation: nothing else copies what the decoder or the cache owns."""
    picture = tmp_path / "a.png"
    cv2.imwrite(str(picture), np.full((4, 5), 7, np.uint8))
    cache = DecodedCache(tmp_path / "cache", max_bytes=1 << 20)
    for mapper in (
        SemanticMapper(is_train=False, image_format="raw"),
        SemanticMapper(is_train=False, image_format="raw", cache=cache),
    ):
        for _ in range(2):
            image = mapper({"file_name": str(picture)})["image"]
            assert (image == 7).all()
            image.zero_()


def test_the_cache_is_bounded(semantic, tmp_path):
    mapper = SemanticMapper(
        is_train=False, cache=DecodedCache(tmp_path / "cache", max_bytes=120_000)
    )
    for record in semantic[:10]:
        mapper(record)
    used = sum(p.stat().st_size for p in (tmp_path / "cache").rglob("*.npy"))
    assert 90_000 < used < 121_000


@pytest.mark.parametrize(
    ("dataset", "kind"),
    [
        ("shapes_train", SemanticMapper),
        ("shapes_instance_train", InstanceMapper),
        ("shapes_panoptic_train", PanopticMapper),
    ],
)
def test_the_mapper_follows_the_dataset(dataset, kind):
    cfg = seg_plugins.get_cfg()
    cfg.DATASETS.TRAIN = (dataset,)
    cfg.INPUT.MIN_SIZE_TRAIN = (128,)
    for is_train in (True, False):
        mapper = build_mapper(cfg, is_train)
        assert type(mapper) is kind
        sample = mapper(DatasetCatalog.get(dataset)[0], rng())
        assert ("sem_seg" in sample or "instances" in sample) == is_train
    cfg.INPUT.MAPPER = "SemanticMapper"
    assert type(build_mapper(cfg, True)) is SemanticMapper


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("CROP.TYPE", "some_range"),
        ("RANDOM_FLIP", "diagonal"),
        ("RESIZE", "longest"),
        ("FORMAT", "HSV"),
    ],
)
def test_unknown_settings_list_the_known(key, value):
    cfg = seg_plugins.get_cfg()
    cfg.DATASETS.TRAIN = ("shapes_train",)
    cfg.INPUT.CROP.ENABLED = True
    cfg.merge_from_list([f"INPUT.{key}", value])
    with pytest.raises(ValueError, match=rf"INPUT\.{key} is '{value}'"):
        build_mapper(cfg, True)


def test_the_configuration_reaches_every_task():
    """One builder: what the file says holds for all three, whatever the model's own keys say."""
    cfg = seg_plugins.get_cfg()
    cfg.INPUT.ELASTIC.SIGMA, cfg.INPUT.BLUR_SIGMA = 3.0, 1.0
    cfg.INPUT.MASK_FORMAT, cfg.MODEL.MASK_ON = "bitmask", False
    for dataset in ("shapes_train", "shapes_instance_train", "shapes_panoptic_train"):
        cfg.DATASETS.TRAIN = (dataset,)
        mapper = build_mapper(cfg, True)
        assert mapper.elastic == ElasticDeformation(3.0)
        assert mapper.photometric == (Blur(1.0),)
        assert build_mapper(cfg, False).elastic is None
    cfg.DATASETS.TRAIN = ("shapes_instance_train",)
    assert build_mapper(cfg, True).mask_format == "bitmask"
    cfg.INPUT.MASK_FORMAT = "polygon"
    with pytest.raises(ValueError, match=r"INPUT\.ELASTIC .* set it to 'bitmask'"):
        build_mapper(cfg, True)
