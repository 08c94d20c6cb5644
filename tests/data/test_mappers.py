"""What holds for every mapper: equal to Detectron2's, a pure function of record and generator."""

from __future__ import annotations

import pickle

from seg_plugins.data import DatasetError, InstanceMapper, PanopticMapper, SemanticMapper
from seg_plugins.data.augmentations import Crop, Flip, ResizeShortestEdge
from seg_plugins.data.decoded_cache import DecodedCache
from seg_plugins.data.elastic import ElasticDeformation
from seg_plugins.data.photometric import Blur, ColorJitter, Noise

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from mapper_draws import GEOMETRY, rng
from PIL import Image
from torch.utils.data import DataLoader, Dataset


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


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return a == b


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


def test_sizes_that_differ_are_named(semantic, tmp_path):
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((64, 128), np.uint8))
    record = {**semantic[0], "sem_seg_file_name": str(tmp_path / "small.png")}
    with pytest.raises(DatasetError, match=r"small\.png: the label is 64x128 .* 128x128"):
        SemanticMapper(is_train=True)(record)
    with pytest.raises(DatasetError, match=r"0000\.png: the image is 128x128 .* says 9x128"):
        SemanticMapper(is_train=True)({**semantic[0], "height": 9, "width": 128})


def test_sides_exchanged_by_exif_are_explained(tmp_path):
    path = str(tmp_path / "a.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 40)).save(path, exif=exif)
    mapper = SemanticMapper(is_train=False)
    with pytest.raises(DatasetError, match=r"64x40 \(height x width\).*40x64: .*EXIF"):
        mapper({"file_name": path, "height": 40, "width": 64})
    # What the message advises: the sides exchanged, or a picture without the tag.
    assert mapper({"file_name": path, "height": 64, "width": 40})["image"].shape == (3, 64, 40)
    Image.new("RGB", (64, 40)).save(path)
    assert mapper({"file_name": path, "height": 40, "width": 64})["image"].shape == (3, 40, 64)
    with pytest.raises(DatasetError, match=r"says 64x40$"):
        mapper({"file_name": path, "height": 64, "width": 40})


def test_pixels_that_are_no_number_are_refused(tmp_path):
    pixels = np.zeros((4, 5, 2), np.float32)
    pixels[1, 2, 0], pixels[1, 2, 1], pixels[3, 3, 1] = np.nan, np.inf, -np.inf
    np.save(tmp_path / "a.npy", pixels)
    mapper = SemanticMapper(is_train=False, image_format="raw")
    with pytest.raises(DatasetError, match=r"a\.npy: 2 of 20 pixels hold NaN or infinity"):
        mapper({"file_name": str(tmp_path / "a.npy")})
