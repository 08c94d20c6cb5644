"""The table of trained models."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from ..config import ConfigError, get_config_file, load_config


@dataclass(frozen=True)
class ZooModel:
    """A trained model.

    Attributes:
        name: what users type.
        config: shipped configuration that it was trained with.
        file: its weights, safetensors in float16.
        sha256: of the file.
        licence: of the weights.
        data: what it learned from, with their licence.
        metric: of the evaluation below, group and name.
        dataset: that the metric was measured on, once.
        value: of the metric, with the weights of the file.
    """

    name: str
    config: str
    file: str
    sha256: str
    licence: str
    data: str
    metric: str
    dataset: str
    value: float

    @property
    def address(self) -> str:
        """For ``MODEL.WEIGHTS``."""
        return f"zoo://{self.name}"

    @property
    def preprocessing(self) -> dict[str, object]:
        """How images are brought to the network: the configuration's ``INPUT`` and scale."""
        cfg = load_config(get_config_file(self.config))
        return {
            "INPUT.FORMAT": cfg.INPUT.FORMAT,
            "INPUT.MIN_SIZE_TEST": cfg.INPUT.MIN_SIZE_TEST,
            "INPUT.MAX_SIZE_TEST": cfg.INPUT.MAX_SIZE_TEST,
            "MODEL.PIXEL_MEAN": list(cfg.MODEL.PIXEL_MEAN),
            "MODEL.PIXEL_STD": list(cfg.MODEL.PIXEL_STD),
        }


MODELS = {
    model.name: model
    for model in (
        ZooModel(
            name="nuclei",
            config="dsb2018/mask_rcnn_lite0_fpn.yaml",
            file="nuclei.safetensors",
            sha256="fb140cc3b3aa88799aa882e4f855508965d0f8a4ded68d0e7f9acd21e7b7f55f",
            licence="Apache-2.0 (from EfficientNet-Lite0 of Google)",
            data="96 images of the 2018 Data Science Bowl (BBBC038, CC0)",
            metric="segm/AP",
            dataset="dsb2018_val",
            value=60.52,
        ),
    )
}


def get(name: str) -> ZooModel:
    """A model of the table.

    Raises:
        ConfigError: there is none of that name; the nearest are named.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, 3, 0.4) or list(MODELS)
        raise ConfigError(f"The zoo has no model '{name}'. Nearest: {', '.join(near)}")
    return MODELS[name]
