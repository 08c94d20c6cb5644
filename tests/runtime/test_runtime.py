"""Exported files in the place of their models: the same outputs, and errors that name the file."""

from __future__ import annotations

import json

from seg_plugins import load_config
from seg_plugins.config import ConfigError
from seg_plugins.export import export_model
from seg_plugins.modeling.test_time.augmentation import with_test_time_augmentation
from seg_plugins.prediction import Predictor
from seg_plugins.prediction.inputs import Preparation
from seg_plugins.prediction.labels import labels_from_config
from seg_plugins.runtime import RUNTIMES, FileModel, ModelFileError, open_engine
from seg_plugins.runtime.threads import container_quota, usable_threads

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

UNET = [
    *("MODEL.DEVICE", "cpu", "MODEL.UNET.DEPTH", 3, "MODEL.UNET.WIDTH", 8),
    *("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["enc1", "enc2", "enc3"], "MODEL.UNET.NORM", "BN"),
    *("MODEL.UNET.PADDING", "same", "INPUT.MIN_SIZE_TEST", 0),
]
SLIDE = [
    *("MODEL.INFERENCE.MODE", "slide", "MODEL.INFERENCE.WINDOW", [48, 64]),
    *("MODEL.INFERENCE.STRIDE", [24, 40]),
]
SEMANTIC = {
    "plain": ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3],
    "one class": ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", 1],
    "slide": ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3, *SLIDE],
}


def predictor_of(cfg, model):
    return Predictor(
        model=model, preparation=Preparation(cfg), labels=labels_from_config(cfg), min_score=0
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """name, kind -> (predictor of the model, file), made once."""
    pytest.importorskip("onnxruntime")
    made = {}

    def make(name):
        if name not in made:
            torch.manual_seed(0)
            cfg = load_config("_base_/unet.yaml", [*UNET, *SEMANTIC[name]])
            model = build_model(cfg).eval()
            folder = tmp_path_factory.mktemp("exported")
            made[name] = predictor_of(cfg, model), export_model(cfg, model, "onnx", folder).path
        return made[name]

    return make


@pytest.fixture(params=list(RUNTIMES))
def runtime(request):
    """Each runtime that is installed; the others are skipped visibly."""
    pytest.importorskip({"onnx": "onnxruntime"}.get(request.param, request.param))
    return request.param


def scene(height, width, seed=0):
    """Discs on a gradient: something that untrained networks tell apart."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = np.repeat(((x + y) % 256)[..., None], 3, axis=2)
    for _ in range(6):
        cy, cx, r = rng.integers(height), rng.integers(width), rng.integers(4, 20)
        image[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = rng.integers(0, 256, 3)
    return image.astype(np.uint8)


@pytest.mark.parametrize("name", SEMANTIC)
def test_semantic_systems_give_the_same_scores(exported, runtime, name):
    ours, path = exported(name)
    theirs = Predictor.from_file(path, runtime=runtime, threads=1)
    sizes = [(61, 75), (61, 75), (48, 64), (97, 130)]
    sizes += [(3, 50)] if name != "slide" else []
    sizes += [(1, 1)] if name != "slide" and runtime == "onnx" else []
    pictures = [ours.preparation.from_array(scene(*size, seed=i)) for i, size in enumerate(sizes)]
    for expected, found in zip(ours.outputs(pictures), theirs.outputs(pictures), strict=True):
        torch.testing.assert_close(found["sem_seg"], expected["sem_seg"], rtol=0, atol=1e-3)
    assert [label.name for label in theirs.labels.stuff] == [
        label.name for label in ours.labels.stuff
    ]
    assert theirs.model.alignment == ours.model.alignment


def test_openvino_does_not_guess_where_a_pooling_is_larger_than_its_map(exported):
    pytest.importorskip("openvino")
    predictor = Predictor.from_file(exported("plain")[1], runtime="openvino")
    with pytest.raises(ModelFileError, match=r"1 x 3 x 1 x 1: Kernel .*or --runtime onnx"):
        predictor(scene(1, 1))


def test_resized_images_come_back_to_their_size(exported, runtime):
    ours, path = exported("plain")
    cfg = load_config(
        "_base_/unet.yaml", [*UNET, "INPUT.MIN_SIZE_TEST", 40, "INPUT.MAX_SIZE_TEST", 99]
    )
    ours = Predictor(model=ours.model, preparation=Preparation(cfg), labels=ours.labels)
    opts = ["INPUT.MIN_SIZE_TEST", "40", "INPUT.MAX_SIZE_TEST", "99"]
    theirs = Predictor.from_file(path, runtime=runtime, opts=opts)
    image = scene(61, 75)
    assert theirs(image).semantic.shape == (61, 75)
    scores = [p.outputs([p.preparation.from_array(image)])[0]["sem_seg"] for p in (ours, theirs)]
    torch.testing.assert_close(*scores, rtol=0, atol=1e-3)


def test_views_are_put_together_as_those_of_the_model(exported, runtime):
    ours, path = exported("plain")
    cfg = load_config("_base_/unet.yaml", UNET)
    cfg.TEST.AUG.ENABLED, cfg.TEST.AUG.MIN_SIZES = True, (0, 80)
    opts = ["TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(0, 80)"]
    theirs = Predictor.from_file(path, runtime=runtime, opts=opts)
    picture = ours.preparation.from_array(scene(61, 75))
    (plain,) = ours.outputs([picture])
    ours = Predictor(
        model=with_test_time_augmentation(cfg, ours.model),
        preparation=ours.preparation,
        labels=ours.labels,
    )
    (expected,), (found,) = ours.outputs([picture]), theirs.outputs([picture])
    torch.testing.assert_close(found["sem_seg"], expected["sem_seg"], rtol=0, atol=1e-3)
    assert (plain["sem_seg"].log_softmax(0) - expected["sem_seg"]).abs().max() > 0.01


def test_batches_do_not_change_results(exported, runtime):
    _, path = exported("plain")
    predictor = Predictor.from_file(path, runtime=runtime, batch_size=4)
    images = [scene(61, 75, seed) for seed in range(5)] + [scene(40, 40)]
    together = predictor(images)
    for image, prediction in zip(images, together, strict=True):
        np.testing.assert_array_equal(predictor(image).semantic, prediction.semantic)


def test_a_file_whose_dataset_is_gone_keeps_its_names(exported, tmp_path):
    onnx = pytest.importorskip("onnx")
    _, path = exported("plain")
    file = onnx.load(path)
    gone = {"name": "gone", "images": "/nowhere", "labels": "/nowhere", "classes": ["a", "b", "c"]}
    for entry in file.metadata_props:
        if entry.key == "classes":
            entry.value = json.dumps(["soil", "wheat", "weed"])
        if entry.key == "config":
            entry.value = entry.value.replace("CUSTOM: []", f"CUSTOM: [{json.dumps(gone)}]")
            entry.value = entry.value.replace("CUSTOM: ''", "CUSTOM: /nowhere/description.yaml")
    onnx.save(file, tmp_path / "moved.onnx")
    labels = Predictor.from_file(tmp_path / "moved.onnx").labels
    assert [label.name for label in labels.stuff] == ["soil", "wheat", "weed"]


def test_damaged_missing_and_foreign_files_are_named(exported, runtime, tmp_path):
    with pytest.raises(ModelFileError, match=r"none\.onnx: no such file"):
        FileModel.open(tmp_path / "none.onnx", runtime)
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ModelFileError, match=r"bad\.onnx: \w+ [\d.]+\S* does not open it"):
        FileModel.open(tmp_path / "bad.onnx", runtime)
    onnx = pytest.importorskip("onnx")
    file = onnx.load(exported("plain")[1])
    del file.metadata_props[:]
    onnx.save(file, tmp_path / "foreign.onnx")
    with pytest.raises(ModelFileError, match=r"foreign\.onnx: its metadata lack task and config"):
        FileModel.open(tmp_path / "foreign.onnx", runtime)


def test_one_changed_byte_is_found_by_the_digest_beside_the_file(exported, runtime, tmp_path):
    _, path = exported("plain")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / path.name).write_bytes(content)
    (tmp_path / "model.onnx.sha256").write_bytes(path.with_name("model.onnx.sha256").read_bytes())
    with pytest.raises(ModelFileError, match=r"model\.onnx: its SHA-256 is .*Export it again"):
        FileModel.open(tmp_path / path.name, runtime)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "depth"}, r"task 'depth', which is none of sem_seg, instances, panoptic"),
        ({"task": "panoptic"}, "lack label_classes and label_colors"),
        ({"colors": None}, "lack colors"),
        ({"alignment": "0"}, "give '0' as alignment"),
        ({"alignment": "[32]"}, r"give '\[32\]' as alignment"),
    ],
)
def test_metadata_that_do_not_say_enough_are_named(exported, tmp_path, changes, message):
    onnx = pytest.importorskip("onnx")
    file = onnx.load(exported("plain")[1])
    kept = {entry.key: entry.value for entry in file.metadata_props} | changes
    del file.metadata_props[:]
    kept = {key: value for key, value in kept.items() if value is not None}
    onnx.helper.set_model_props(file, kept)
    onnx.save(file, tmp_path / "other.onnx")
    with pytest.raises(ModelFileError, match=rf"other\.onnx: its metadata .*{message}"):
        FileModel.open(tmp_path / "other.onnx")


def test_an_image_that_the_file_does_not_take_names_the_window(exported, runtime):
    _, path = exported("slide")
    with pytest.raises(ModelFileError, match=r"model\.onnx: .* 20x200 pixels.* 48x64: .*WINDOW"):
        Predictor.from_file(path, runtime=runtime)(scene(20, 200))


def test_wishes_that_a_file_cannot_meet(exported, tmp_path):
    _, path = exported("plain")
    with pytest.raises(
        ConfigError, match=r"MODEL.UNET.WIDTH is settled in the file.*INPUT and TEST.AUG alone"
    ):
        Predictor.from_file(path, opts=["MODEL.UNET.WIDTH", "4"])
    with pytest.raises(ModelFileError, match="--runtime openvino for bfloat16"):
        Predictor.from_file(path, precision="bfloat16")
    with pytest.raises(ModelFileError, match="runtime 'tensorrt' is not one of torch, onnx"):
        open_engine(path, "tensorrt")
    with pytest.raises(ModelFileError, match=r"a\.xml: runtime onnx runs exported files"):
        open_engine(tmp_path / "a.xml", "onnx")


def test_an_openvino_file_without_its_weights_is_named(tmp_path):
    pytest.importorskip("openvino")
    (tmp_path / "a.xml").write_text("<net/>")
    with pytest.raises(ModelFileError, match=r"a\.bin: no such file: the weights of a\.xml"):
        open_engine(tmp_path / "a.xml")


@pytest.mark.parametrize(
    ("text", "count"),
    [("max 100000", None), ("200000 100000", 2), ("50000 100000", 1), ("x", None)],
)
def test_threads_of_a_container(tmp_path, text, count):
    (tmp_path / "cpu.max").write_text(f"{text}\n")
    assert container_quota(tmp_path / "cpu.max") == count
    assert container_quota(tmp_path / "none") is None
    assert 1 <= usable_threads() <= torch.get_num_threads()
