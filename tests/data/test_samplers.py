"""Detectron2's samplers in the sample stream: which records it draws from, and how often."""

from __future__ import annotations

import copy
import itertools
import logging
import math
from collections import Counter

from seg_plugins import load_config
from seg_plugins.config import ConfigError, Origin
from seg_plugins.data.sample_order import SampleOrder
from seg_plugins.data.sample_stream import SampleStream
from seg_plugins.data.samplers import random_subset, repeat_factors
from seg_plugins.engine.checks.settings import apply_epochs
from seg_plugins.engine.checks.values import check_values
from seg_plugins.engine.train_loader import build_train_loader

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.samplers import RandomSubsetTrainingSampler, RepeatFactorTrainingSampler


def records(*classes: tuple[int, ...]) -> list[dict]:
    box = {"bbox": [0, 0, 4, 4], "bbox_mode": 0, "segmentation": [[0, 0, 4, 0, 4, 4]]}
    return [
        {
            "file_name": f"{i}.png", "image_id": i, "height": 9, "width": 9,
            "annotations": [{**box, "category_id": c} for c in present],
        }
        for i, present in enumerate(classes)
    ]  # fmt: skip


# Class 0 is in 7 of the 8 images, class 1 in two of them, class 2 in one; twice there.
EIGHT = records((0,), (0,), (0, 1), (0,), (0, 0), (0,), (1, 0), (2, 2))


def taken(order: SampleOrder, first: int, count: int) -> list[int]:
    return [order[i] for i in range(first, first + count)]


def test_without_factors_every_epoch_is_a_new_permutation():
    order = SampleOrder(5, 10)
    epochs = [taken(order, 10 * e, 10) for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != taken(SampleOrder(6, 10), 0, 10)


def test_the_order_of_runs_that_are_resumed_stays_what_it_was():
    """By the generator itself: NumPy keeps the streams of Philox and of permutation."""
    for epoch in (0, 7):
        rng = np.random.Generator(np.random.Philox(key=[5 + 2**32, epoch]))
        assert taken(SampleOrder(5, 10), 10 * epoch, 10) == rng.permutation(10).tolist()
    assert taken(SampleOrder(5, 10, np.ones(10)), 0, 40) == taken(SampleOrder(5, 10), 0, 40)


def test_repeat_factors_by_hand_and_as_detectron2s():
    factors = repeat_factors(EIGHT, 0.5)
    # Class 1: sqrt(0.5 / 0.25). Class 2: sqrt(0.5 / 0.125). Class 0 is frequent.
    root = math.sqrt(2)
    np.testing.assert_allclose(factors, [1, 1, root, 1, 1, 1, root, 2], rtol=1e-7)
    linear = repeat_factors(EIGHT, 0.5, sqrt=False)
    np.testing.assert_allclose(linear, [1, 1, 2, 1, 1, 1, 2, 4], rtol=1e-6)
    rng = np.random.default_rng(0)
    rarely = [tuple(np.flatnonzero(rng.random(40) < 0.3 / (1 + np.arange(40)))) for _ in range(500)]
    many = records(*(tuple(map(int, present)) for present in rarely))
    for threshold in (0.001, 0.05, 1.0):
        theirs = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(many, threshold)
        assert np.array_equal(repeat_factors(many, threshold), theirs.double().numpy())


def test_an_epoch_is_the_rounded_multiset_and_frequencies_are_the_factors():
    factors = np.array([1, 1.25, 2.5, 1, 3.9, 1])
    order = SampleOrder(7, 6, factors)
    taken(order, 0, 43_000)  # so that it knows where the first 4,000 epochs or so begin
    starts = order._starts[:4001]
    epochs = [Counter(taken(order, a, b - a)) for a, b in itertools.pairwise(starts)]
    assert len(epochs) == 4000
    counts = np.array([[epoch[i] for i in range(6)] for epoch in epochs])
    assert (counts >= np.floor(factors)).all()
    assert (counts <= np.ceil(factors)).all()
    share = factors % 1
    error = 4 * np.sqrt(share * (1 - share) / len(epochs))  # standard deviations of the mean
    assert (np.abs(counts.mean(0) - factors) <= error).all()
    # Roundings are independent of each other and of the epoch before.
    ups = (counts > np.floor(factors))[:, share > 0]
    bound = 4 / math.sqrt(len(epochs))
    assert np.abs(np.corrcoef(ups.T)[~np.eye(3, dtype=bool)]).max() < bound
    assert abs(np.corrcoef(ups[1:, 1], ups[:-1, 1])[0, 1]) < bound


def test_a_position_says_the_same_whatever_was_asked_before():
    factors = np.random.default_rng(1).uniform(1, 4, 20)
    expected = taken(SampleOrder(3, 20, factors), 0, 1000)
    places = np.random.default_rng(2).permutation(1000).tolist()
    order = SampleOrder(3, 20, factors)
    assert [order[place] for place in places] == [expected[place] for place in places]
    assert expected != taken(SampleOrder(4, 20, factors), 0, 1000)


def test_replacements_are_as_frequent_as_in_the_epochs():
    order = SampleOrder(0, 3, np.array([1, 2.5, 1.5]))
    rng = np.random.default_rng(0)
    counts = np.bincount([order.draw(rng) for _ in range(10_000)], minlength=3)
    np.testing.assert_allclose(counts / 10_000, [0.2, 0.5, 0.3], atol=0.02)


@pytest.mark.parametrize("factors", [[1, 2], [1, -1, 1], [1, np.nan, 1], [0, 0, 0]])
def test_factors_that_are_none(factors):
    with pytest.raises(ConfigError, match="should be 3 finite numbers of at least 0"):
        SampleOrder(0, 3, np.array(factors))


def test_a_random_subset_has_detectron2s_size_and_grows_with_the_ratio(caplog):
    caplog.set_level(logging.INFO)
    many = records(*[(0,)] * 57)
    sizes, chosen = {}, set()
    for ratio in (0.05, 0.1, 0.29, 0.999):
        found = random_subset(many, ratio, 11)
        theirs = RandomSubsetTrainingSampler(57, ratio, seed_shuffle=0, seed_subset=0)
        assert len(found) == len(theirs._indexes_subset)
        names = [record["file_name"] for record in found]
        assert len(set(names)) == len(names)
        assert chosen <= set(names), "a larger ratio keeps the images of a smaller one"
        chosen, sizes[ratio] = set(names), len(names)
    assert sizes == {0.05: 2, 0.1: 5, 0.29: 16, 0.999: 56}
    assert "5 of 57 images, by SEED 11" in caplog.text
    other = {record["file_name"] for record in random_subset(many, 0.29, 12)}
    assert other != {record["file_name"] for record in random_subset(many, 0.29, 11)}
    with pytest.raises(ConfigError, match=r"0\.01 of 57 images leaves none: set 0\.018"):
        random_subset(many, 0.01, 11)


# ------------------------------------------------------------------------- by configuration


@pytest.fixture
def eight():
    DatasetCatalog.register("eight", lambda: EIGHT)
    MetadataCatalog.get("eight").set(thing_classes=["often", "rare", "rarest"])
    yield
    DatasetCatalog.remove("eight")
    MetadataCatalog.remove("eight")


def config(*opts: str):
    fixed = ("DATASETS.TRAIN", "('eight',)", "SEED", "3", "SOLVER.IMS_PER_BATCH", "4")
    numbers = ("DATALOADER.NUM_WORKERS", "0", "INPUT.MASK_FORMAT", "bitmask")
    return load_config("shapes/mask_rcnn_r18_fpn.yaml", [*fixed, *numbers, *opts])


REPEAT = ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler",
          "DATALOADER.REPEAT_THRESHOLD", "0.5")  # fmt: skip
SUBSET = ("DATALOADER.SAMPLER_TRAIN", "RandomSubsetTrainingSampler",
          "DATALOADER.RANDOM_SUBSET_RATIO", "0.5")  # fmt: skip


def names(loader, count):
    return [loader.stream.record(i)[0]["file_name"] for i in range(count)]


def test_the_configured_sampler_is_the_one_of_the_stream(eight, caplog):
    caplog.set_level(logging.INFO)
    plain = names(build_train_loader(config(), copy.copy), 16)
    assert sorted(plain[:8]) == sorted(plain[8:]) == [f"{i}.png" for i in range(8)]
    repeated = Counter(names(build_train_loader(config(*REPEAT), copy.copy), 2000))
    assert "3 of 8 images are repeated (DATALOADER.REPEAT_THRESHOLD 0.5)" in caplog.text
    assert "2 times; a round of all images has 10 samples" in caplog.text
    total = 5 + 2 * math.sqrt(2) + 2  # five images once, two by the root, one twice
    assert repeated["7.png"] / 2000 == pytest.approx(2 / total, abs=0.005)
    assert repeated["2.png"] / 2000 == pytest.approx(math.sqrt(2) / total, abs=0.02)
    half = build_train_loader(config(*SUBSET), copy.copy)
    assert len(half.stream) == 4
    assert len(set(names(half, 40))) == 4


def test_a_refused_sample_of_a_subset_is_replaced_by_one_of_it(eight):
    chosen = set(names(build_train_loader(config(*SUBSET), copy.copy), 4))
    refused = min(chosen)

    def refuse(record):
        return None if record["file_name"] == refused else record

    stream = build_train_loader(config(*SUBSET), refuse).stream
    assert {stream[i]["file_name"] for i in range(60)} == chosen - {refused}


def test_an_epoch_is_as_many_samples_as_images(eight):
    """Batches of 4: two rounds of 8 images, repeated or not, are 4; of half of them 2."""
    for opts, iterations in (((), 4), (REPEAT, 4), (SUBSET, 2)):
        cfg = config("SOLVER.EPOCHS", "2", *opts)
        apply_epochs(cfg, Origin("shapes/mask_rcnn_r18_fpn.yaml", ["SOLVER.EPOCHS", "2"]))
        assert iterations == cfg.SOLVER.MAX_ITER


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("DATALOADER.SAMPLER_TRAIN", "Shuffled"),
         "Shuffled is not one of TrainingSampler, RepeatFactorTrainingSampler, RandomSubsetTr"),
        (REPEAT[:2], r"repeats nothing with DATALOADER\.REPEAT_THRESHOLD 0: .* 0\.001"),
        (SUBSET[:2], r"RATIO 1 and .*RandomSubsetTrainingSampler do not belong together"),
        (SUBSET[2:], r"RATIO 0\.5 and .*TRAIN TrainingSampler do not belong together"),
        ((*SUBSET, "INPUT.COPY_PASTE", "0.5"), r"whole training set .* INPUT\.COPY_PASTE 0\.0"),
        ((*SUBSET[:3], "0.1"), r"0\.1 of 8 images leaves none: set 0\.12 or more"),
    ],
)  # fmt: skip
def test_settings_that_do_not_belong_together(eight, opts, message):
    with pytest.raises(ConfigError, match=message):
        build_train_loader(config(*opts), copy.copy)


@pytest.mark.parametrize(
    ("key", "value"), [("RANDOM_SUBSET_RATIO", "0.0"), ("RANDOM_SUBSET_RATIO", "1.5"),
                       ("REPEAT_THRESHOLD", "-0.1")],
)  # fmt: skip
def test_values_that_cannot_work(key, value):
    with pytest.raises(ConfigError, match=rf"DATALOADER\.{key} .* should be"):
        check_values(config(f"DATALOADER.{key}", value))


def test_repeats_need_annotations():
    with pytest.raises(ConfigError, match=r"1 of 2 records have none, the first is a\.png"):
        repeat_factors([EIGHT[0], {"file_name": "a.png"}], 0.5)


def test_a_stream_takes_an_order_of_the_users_own():
    """As an own build_train_loader may: weights that come from somewhere else."""
    order = SampleOrder(0, 8, np.array([0, 0, 0, 1, 0, 0, 0, 3]))
    stream = SampleStream(records=EIGHT, mapper=copy.copy, seed=0, order=order)
    found = [stream[i]["file_name"] for i in range(8)]
    assert Counter(found[:4]) == Counter(found[4:]) == {"3.png": 1, "7.png": 3}
