"""The loss of a semantic head from its configuration.

``MODEL.SEM_SEG_HEAD.LOSS_TYPE`` names one loss of :mod:`.losses`, with options where others than
the usual ones are wanted, or a weighted sum: ``"focal(gamma=1.5) + 0.5 * dice"``;
``CLASS_WEIGHTS`` gives the factors of the classes.
"""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from ..config import ConfigError
from .loss_terms import Loss, Mean
from .losses import IGNORED, LOSS_REGISTRY

_KEY = "MODEL.SEM_SEG_HEAD.LOSS_TYPE"


class Term(NamedTuple):
    """One part of a weighted sum."""

    factor: float
    name: str
    options: dict[str, Any]


def parse_loss_type(text: str) -> list[Term]:
    """The terms of ``"focal(gamma=1.5) + 0.5 * dice"``.

    Raises:
        ConfigError: an unknown name or option, or a sum that cannot be read.
    """
    try:
        tree = ast.parse(str(text).strip(), mode="eval")
        return [_term(node) for node in _summands(tree.body)]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, ConfigError):
            raise ConfigError(f"{_KEY} '{text}': {error}") from None
        raise ConfigError(
            f"{_KEY} '{text}' cannot be read. It names one of "
            f"{', '.join(name for name, _ in LOSS_REGISTRY)}; a sum is written "
            "'focal(gamma=1.5) + 0.5 * dice'."
        ) from None


def _summands(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [*_summands(node.left), node.right]
    return [node]


def _term(node: ast.expr) -> Term:
    factor = 1.0
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        factor, node = _number(node.left), node.right
    options: list[ast.keyword] = []
    if isinstance(node, ast.Call) and not node.args:
        options, node = node.keywords, node.func
    if not isinstance(node, ast.Name):
        raise ValueError(node)
    known = [name for name, _ in LOSS_REGISTRY]
    if node.id not in known:
        raise ConfigError(f"'{node.id}' is not one of {', '.join(known)}")
    given: dict[str, Any] = {}
    for option in options:
        key = option.arg or "**"
        if key in given:
            raise ConfigError(f"{node.id} has its option '{key}' twice")
        given[key] = _value(option.value)
    _check_options(node.id, given)
    return Term(factor, node.id, given)


def _value(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except TypeError as error:  # a set of lists, ...
        raise ValueError(node) from error


def _number(node: ast.expr) -> float:
    value = _value(node)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(value)
    if not 0 <= value < math.inf:
        raise ValueError(value)
    return float(value)


def _check_options(name: str, given: dict[str, Any]) -> None:
    """Raise ConfigError for options that a loss lacks, needs, or takes in another type."""
    parameters = list(inspect.signature(LOSS_REGISTRY.get(name)).parameters.values())[4:]
    known = {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD}
    shown = ", ".join(
        key if usual is inspect.Parameter.empty else f"{key}={usual!r}"
        for key, usual in known.items()
    )
    for key in given.keys() - known.keys():
        raise ConfigError(f"{name} has no option '{key}'. It has {shown or 'none'}")
    for key, usual in known.items():
        if usual is inspect.Parameter.empty:
            if key not in given:
                raise ConfigError(f"{name} needs its option '{key}': {name}({key}=...)")
        elif key in given and not _is_like(given[key], usual):
            raise ConfigError(
                f"{name}({key}={given[key]!r}) should be like its usual value, {key}={usual!r}"
            )


def _is_like(value: Any, usual: Any) -> bool:
    if isinstance(usual, float):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and abs(value) < math.inf
    return usual is None or type(value) is type(usual)


def resolve_class_weights(
    value: str | Sequence[float] | None, num_classes: int
) -> list[float] | None:
    """Class weights from ``MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS``.

    Args:
        value: None or "none", or a factor per class.
        num_classes: K; a single class takes two factors, background first.

    Raises:
        ConfigError: a list of the wrong length, or the name of a scheme: it needs the training
            set, which a model does not see.
    """
    if value is None or value == "none":
        return None
    if isinstance(value, str):
        raise ConfigError(
            f"MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS '{value}': a model is trained with 'none' or a list "
            "of numbers. The named schemes are worked out from the training set by "
            "seg-plugins train (seg_plugins.engine.setup), which writes the list into config.yaml."
        )
    expected = max(num_classes, 2)
    if len(value) != expected:
        raise ConfigError(
            f"MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS has {len(value)} factors, but {expected} are needed "
            f"for NUM_CLASSES {num_classes}: one per class, in the order of the class ids"
        )
    return [float(factor) for factor in value]


class SemanticLoss(nn.Module):
    """The loss of a semantic head: a weighted sum of :mod:`.losses`."""

    class_weights: Tensor | None

    def __init__(
        self,
        *,
        loss_type: str = "cross_entropy",
        num_classes: int,
        ignore_value: int = 255,
        class_weights: str | Sequence[float] | None = None,
    ) -> None:
        """Build the loss.

        Args:
            loss_type: one loss, or a weighted sum; see :func:`parse_loss_type`.
            num_classes: number of score channels K.
            ignore_value: the label of pixels that contribute nothing.
            class_weights: see :func:`resolve_class_weights`. A scheme's name is refused when a
                loss is asked for: models are built for inference, too.
        """
        super().__init__()
        self.terms = parse_loss_type(loss_type)
        self.num_classes, self.ignore_value = num_classes, ignore_value
        self.scheme = class_weights if isinstance(class_weights, str) else None
        factors = None if self.scheme else resolve_class_weights(class_weights, num_classes)
        weights = torch.tensor(factors, dtype=torch.float32) if factors else None
        self.register_buffer("class_weights", weights, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> SemanticLoss:
        """The loss that ``MODEL.SEM_SEG_HEAD`` describes."""
        head = cfg.MODEL.SEM_SEG_HEAD
        return cls(
            loss_type=head.LOSS_TYPE,
            num_classes=head.NUM_CLASSES,
            ignore_value=head.IGNORE_VALUE,
            class_weights=head.CLASS_WEIGHTS,
        )

    def forward(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Loss:
        """Compute the loss.

        Args:
            logits: (N, K, H, W), any float type; computed in float32.
            targets: (N, H, W) int64 labels.
            weights: optional (N, H, W) float32 factors by pixel, e.g. U-Net's border weights.

        Returns:
            The means that make it up; ``value`` is a float32 scalar.

        Raises:
            ConfigError: class weights are named by a scheme.
        """
        resolve_class_weights(self.scheme, self.num_classes)
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float().view_as(logits)  # a tensor of its own: it keeps its softmax
            valid = targets != self.ignore_value
            targets = targets.masked_fill(~valid, IGNORED)
            factors = self._factors(targets, weights, logits)
            means: list[Mean] = []
            for factor, name, options in self.terms:
                function: Callable[..., Any] = LOSS_REGISTRY.get(name)
                loss = function(logits, targets, valid, factors, **options)
                means += Loss.of(loss).times(factor)
        return Loss(means)

    def _factors(self, targets: Tensor, weights: Tensor | None, logits: Tensor) -> Tensor:
        """(N, H, W): of the classes times those of the pixels."""
        if self.class_weights is not None:
            of_classes = self.class_weights[targets.clamp(min=0)]
            return of_classes if weights is None else of_classes * weights
        return torch.ones_like(targets, dtype=logits.dtype) if weights is None else weights
