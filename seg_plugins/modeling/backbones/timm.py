"""Any timm model that gives feature maps, as a Detectron2 backbone.

timm is imported where a model is built: it takes about a second, and PyTorch's compiler with it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn

from ...config import ConfigError
from ..norms import group_count, group_norm

NORMS = ("", "FrozenBN", "SyncBN", "GN")


class TimmBackbone(Backbone):
    """A timm model cut into features named ``res{n}``.

    ``res{n}`` has stride 2^n in the undilated network, as in Detectron2's ResNets: ``res2`` is the
    stride-4 feature and ``res5`` the last one (stride 32, or the output stride with dilation).
    Models that give a stride-2 or stride-1 feature have ``res1`` and ``res0`` too; models whose
    features all have one stride count upwards from it.
    """

    def __init__(
        self,
        *,
        name: str,
        out_features: Sequence[str] = ("res2", "res3", "res4", "res5"),
        in_channels: int = 3,
        output_stride: int = 32,
        pretrained: bool = False,
        norm: str = "",
        freeze_at: int = 0,
    ) -> None:
        """Build the model.

        Args:
            name: a timm model name, e.g. ``resnet18`` or ``xception65.tf_in1k``.
            out_features: features to return; layers after the last one are left out where timm can
                cut the model there.
            in_channels: image channels; timm adapts pretrained weights of the first layer.
            output_stride: 32, 16 or 8: strides beyond it become dilations.
            pretrained: load timm's weights of that name now (from its cache when offline), which
                gives the first layer any number of channels; ``MODEL.WEIGHTS timm://NAME`` loads
                them later.
            norm: replaces the model's batch norms: ``FrozenBN``, ``SyncBN`` or ``GN``
                (32 channels or fewer per group, newly initialised); "" keeps them.
            freeze_at: freeze everything up to ``res{freeze_at}`` (1: the stem of a ResNet), its
                batch norms' statistics included; 0: nothing.

        Raises:
            ConfigError: unknown model, feature or norm; an output stride the model cannot have;
                pretrained weights that are not at hand.
        """
        super().__init__()
        if norm not in NORMS:
            raise ConfigError(f"MODEL.TIMM.NORM must be one of {NORMS}, got '{norm}'")
        model = create_timm_model(name, in_channels, output_stride)
        names = feature_names(model.feature_info.reduction())
        unknown = [feature for feature in out_features if feature not in names]
        if unknown or not out_features:
            raise ConfigError(
                f"MODEL.TIMM.OUT_FEATURES: timm model '{name}' has no feature {unknown}; "
                f"it has {', '.join(names)}"
            )
        modules = model.feature_info.module_name()
        channels, strides = model.feature_info.channels(), model.feature_info.reduction()
        depth = 1 + max(names.index(feature) for feature in out_features)
        # Parameters without a gradient would disturb data parallelism: cut what is not used.
        if pretrained or depth < len(names):
            model = create_timm_model(name, in_channels, output_stride, pretrained, range(depth))
        self._names = names[:depth]
        self._out_features = [feature for feature in names if feature in out_features]
        self._out_feature_channels = dict(zip(names, channels, strict=True))
        self._out_feature_strides = dict(zip(names, strides, strict=True))
        self._nhwc = "NHWC" in str(getattr(model, "output_fmt", ""))

        from timm.layers import convert_sync_batchnorm, freeze_batch_norm_2d

        if norm == "FrozenBN":
            model = freeze_batch_norm_2d(model)
        elif norm == "SyncBN":
            model = convert_sync_batchnorm(model)
        elif norm == "GN":
            _replace_batch_norms(model, _group_norm)
        frozen = [m for n, m in zip(names, modules, strict=True) if int(n[3:]) <= freeze_at]
        if frozen:
            _freeze_up_to(model, frozen[-1])
        self.model = model

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) normalised images to name -> (N, C', H / stride, W / stride)."""
        maps = dict(zip(self._names, self.model(x), strict=True))
        if self._nhwc:
            maps = {name: feature.permute(0, 3, 1, 2) for name, feature in maps.items()}
        return {name: maps[name] for name in self._out_features}

    @property
    def size_divisibility(self) -> int:
        """The largest stride."""
        return max(self._out_feature_strides.values())


def feature_names(strides: Sequence[int]) -> list[str]:
    """``res{n}`` for each feature of a network with these strides, dilated or not."""
    levels: list[int] = []
    for stride in strides:
        level = int(stride).bit_length() - 1
        levels.append(max(level, levels[-1] + 1) if levels else level)
    return [f"res{level}" for level in levels]


def create_timm_model(
    name: str,
    in_channels: int = 3,
    output_stride: int = 32,
    pretrained: bool = False,
    out_indices: Sequence[int] | None = None,
) -> nn.Module:
    """A timm model that gives feature maps; arguments and errors as of :class:`TimmBackbone`."""
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        raise ConfigError(
            f"MODEL.TIMM.NAME: timm {timm.__version__} has no model '{name}'. "
            f"Nearest: {', '.join(near) or 'none; see timm.list_models()'}"
        )
    options: dict[str, object] = {"features_only": True, "in_chans": in_channels}
    if output_stride != 32:  # many models do not know the argument
        options["output_stride"] = output_stride
    if out_indices is not None:
        options["out_indices"] = tuple(out_indices)
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except (AssertionError, NotImplementedError, TypeError) as error:
        raise ConfigError(
            f"timm model '{name}' cannot be built with MODEL.TIMM.OUTPUT_STRIDE {output_stride}: "
            f"choose 32, or a convolutional model such as resnet50. ({error!r})"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"The pretrained weights of timm model '{name}' are neither in the cache ($HF_HOME, "
            "default ~/.cache/huggingface) nor reachable. Fetch them once on a machine that is "
            'online, or start from random weights: MODEL.TIMM.PRETRAINED False, MODEL.WEIGHTS "". '
            f"({str(error).splitlines()[0]})"
        ) from error


def _batch_norms(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """(parent, attribute, batch norm) of every batch norm, in the order of registration."""
    for parent in list(model.modules()):
        for attribute, child in list(parent.named_children()):
            if isinstance(child, (nn.BatchNorm2d, nn.SyncBatchNorm)):
                yield parent, attribute, child


def _replace_batch_norms(model: nn.Module, replace: Callable[[nn.Module], nn.Module]) -> None:
    for parent, attribute, norm in _batch_norms(model):
        setattr(parent, attribute, replace(norm))


def _group_norm(norm: nn.Module) -> nn.Module:
    """A group norm in the place of a batch norm, with its activation if it carries one."""
    channels = norm.num_features
    if not hasattr(norm, "act"):
        return group_norm(channels)
    from timm.layers import GroupNormAct

    new = GroupNormAct(channels, num_groups=group_count(channels))
    new.act, new.drop = norm.act, norm.drop
    return new


def _freeze_up_to(model: nn.Module, last: str) -> None:
    """Freeze each module registered before ``last`` (a name of timm's), and that one."""
    from timm.layers import freeze_batch_norm_2d

    modules = dict(model.named_modules())
    # Feature extractors flatten "blocks.0.act" to "blocks_0.act", or wrap it in "model.".
    candidates = (last, last.replace(".", "_", 1), f"model.{last}")
    name = next((candidate for candidate in candidates if candidate in modules), None)
    if name is None:
        raise ConfigError(f"'{last}' cannot be frozen in this model: set FREEZE_AT to 0")
    order = list(modules)
    upto = order[: order.index(name) + 1] + [key for key in order if key.startswith(name + ".")]
    frozen = {id(modules[key]) for key in upto}
    for key in upto:
        for parameter in modules[key].parameters(recurse=False):
            parameter.requires_grad_(False)
    for parent, attribute, norm in _batch_norms(model):
        if id(norm) in frozen:
            setattr(parent, attribute, freeze_batch_norm_2d(norm))


def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TimmBackbone:
    """Build ``MODEL.TIMM`` for images with ``input_shape.channels`` channels.

    Pretrained weights are left out where ``MODEL.WEIGHTS`` replaces them: a trained model loads on
    a machine that has neither timm's cache nor a network.
    """
    return TimmBackbone(
        name=cfg.MODEL.TIMM.NAME,
        out_features=cfg.MODEL.TIMM.OUT_FEATURES,
        in_channels=input_shape.channels,
        output_stride=cfg.MODEL.TIMM.OUTPUT_STRIDE,
        pretrained=cfg.MODEL.TIMM.PRETRAINED and not cfg.MODEL.WEIGHTS,
        norm=cfg.MODEL.TIMM.NORM,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )
