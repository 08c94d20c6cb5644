from seg_plugins import load_config
from seg_plugins.config import ConfigError
from seg_plugins.modeling.analysis import analyze, recomputation

import pytest


def rows(name: str, height: int, width: int, *opts) -> dict:
    return {row.name: row for row in analyze(load_config(name, opts), height, width)}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("voc/fcn32s_vgg16.yaml", 136_152_917),
        ("voc/fcn16s_vgg16.yaml", 134_815_994),
        ("voc/fcn8s_vgg16.yaml", 134_489_759),
        ("isbi2012/unet_valid.yaml", 31_030_658),
        ("camvid/segnet_vgg16.yaml", 29_449_355),
        ("camvid/segnet_basic.yaml", 1_416_587),
    ],
)
def test_parameters_of_the_papers_models(name: str, parameters: int) -> None:
    found = rows(name, 64, 64)
    assert found["total"].parameters == parameters
    assert found["backbone"].parameters + found["sem_seg_head"].parameters == parameters


@pytest.mark.parametrize(
    ("opts", "parameters"),
    [
        ((), 59_467_315),
        # Detectron2's separable decoder is one 5x5 convolution.
        (("USE_DEPTHWISE_SEPARABLE_CONV", True, "SEPARABLE_DECODER_KERNEL", 5), 45_747_267),
    ],
)
def test_parameters_of_detectron2s_r103(opts, parameters: int) -> None:
    keys = [f"MODEL.SEM_SEG_HEAD.{o}" if i % 2 == 0 else o for i, o in enumerate(opts)]
    found = rows("cityscapes/deeplabv3plus_r103.yaml", 64, 64, *keys)
    assert found["total"].parameters == parameters


@pytest.mark.parametrize(
    ("name", "billions", "tolerance"),
    [
        ("voc/deeplabv3plus_x65_separable.yaml", 54.17, 0.02),
        # What separable convolutions replace weighs 32.6 B here and 35.6 B in the paper, which
        # does not list its parts; the rest is the row above.
        ("voc/deeplabv3plus_x65.yaml", 89.76, 0.04),
    ],
)
def test_multiply_adds_of_xception_65(name: str, billions: float, tolerance: float) -> None:
    found = rows(name, 513, 513)["total"].multiply_adds / 1e9
    assert found == pytest.approx(billions, rel=tolerance)


def test_activation_memory_by_hand() -> None:
    # SegNet-Basic's head on 16x16 pixels with one class: each unpooling keeps its codes and gives
    # a map that the convolution keeps; the norm keeps the convolution's output and two statistics.
    found = rows("camvid/segnet_basic.yaml", 16, 16)["sem_seg_head"].activation_bytes
    maps = sum(64 * side**2 for side in (2, 4, 8, 16))
    norms, classifier = 4 * 2 * 64, 64 * 16**2
    assert found == 4 * (2 * maps + norms + classifier)


def test_fully_convolutional_evaluation_saves_recomputation() -> None:
    cfg = load_config("isbi2012/patch_classifier.yaml")
    counts = recomputation(cfg, 512, 512)
    assert counts.naive / counts.dense > 400
    # Only the mirrored border is computed in addition where windows do not overlap at all.
    alone = recomputation(cfg, 1, 1)
    assert alone.dense > alone.naive


def test_other_models_are_refused() -> None:
    cfg = load_config("voc/fcn8s_vgg16.yaml")
    with pytest.raises(ConfigError, match="PatchClassifier"):
        recomputation(cfg, 8, 8)
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    cfg.MODEL.SEM_SEG_HEAD.NAME = "SemSegFPNHead"
    with pytest.raises(ConfigError, match="not a semantic system"):
        analyze(cfg, 64, 64)
