"""How the weights of a file fit a model: as a start for a training, or as the whole model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from torch import Tensor, nn

from .conversion import convert
from .layout import Weights, WeightsError, named, nonfinite_names, plain_name, spellings
from .names import Library, depth_of_resnet, described

# Counts batches for an average that neither training nor inference uses; many files leave it out.
_OPTIONAL = "num_batches_tracked"
# Fewer of the tensors than this, of the file's and of the model's, are next to nothing.
_LEAST_SHARE = 0.05


@dataclass
class Fit:
    """What of a file fits a model.

    Attributes:
        weights: the file's content.
        target: the model's tensors.
        loaded: name in the model -> tensor of its shape.
        misfits: tensors of another size or kind, with both.
        missing: names of the model that the file does not give.
        unused: names of the file that the model does not have.
        kind: what the file looks like: library and network; "" for a file of this package.
        library: whose names the file has, where they were brought to the model's.
        adapted: the first convolution, where it got another number of input channels.
    """

    weights: Weights
    target: Mapping[str, Tensor]
    loaded: dict[str, Tensor]
    misfits: list[str]
    missing: list[str]
    unused: list[str]
    kind: str = ""
    library: Library | None = None
    adapted: str = ""

    @property
    def total(self) -> int:
        """Tensors that the model needs."""
        return sum(not name.endswith(_OPTIONAL) for name in self.target)

    @property
    def count(self) -> int:
        """Those of them that the file gives."""
        return self.total - len(self.misfits) - len(self.missing)

    def __str__(self) -> str:
        """One line."""
        parts = [f"{self.adapted}"] if self.adapted else []
        if self.misfits:
            parts.append(f"{len(self.misfits)} of another size ({named(self.misfits, 2)})")
        if self.missing:
            parts.append(f"{len(self.missing)} missing ({named(self.missing, 3)})")
        if self.unused:
            parts.append(
                f"{len(self.unused)} of the file are not the model's ({named(self.unused, 3)})"
            )
        kind = f" ({self.kind})" if self.kind else ""
        line = f"{self.count} of {self.total} tensors loaded from {self.weights.origin}{kind}"
        return f"{line}: {', '.join(parts)}" if parts else line

    def foreign(self) -> list[str]:
        """Unused learned tensors within parts that the model has: the file's model is another one.

        A part is what the first two words of a name say. A mask head that is turned off or a loss
        is a part of its own; a block more in the backbone or statistics of a norm are not.
        """
        parts = {tuple(plain_name(name).split(".")[:2]) for name in self.target}
        tensors = self.weights.tensors
        return [
            name
            for name in self.unused
            if not name.endswith(_OPTIONAL)
            and any(tuple(n.split(".")[:2]) in parts for n in spellings(name) if n.count(".") > 1)
            and (name not in tensors or tensors[name].is_floating_point())
        ]


def fit(weights: Weights, model: nn.Module, *, start: bool = True) -> Fit:
    """Compare a file with a model, which is not changed.

    Names are the model's, but for what wraps or owns a model, or Detectron2's rules apply; where
    other libraries' names (:mod:`.conversion`) bring more tensors into the model, those.

    Args:
        weights: the file.
        model: as built.
        start: for a start a file of another of this package's or Detectron2's models is taken by
            what both have, too. It is no whole model: networks of one shape differ in strides.

    Raises:
        WeightsError: a name of the file stands for several of the model.
    """
    target = model.state_dict(keep_vars=True)
    found = _by_own_names(weights, target)
    if found.count < found.total:
        converted = _by_other_names(weights, target)
        known = start or converted.library is not None
        if known and converted.count > found.count:
            return converted
    return found


def _by_other_names(weights: Weights, target: Mapping[str, Tensor]) -> Fit:
    result = convert(weights.tensors, target)
    given = {id(target[name]) for name in result.weights}  # one tensor may have several names
    places = [text.partition(": ") for text in result.misfits]
    wrong = {place.rpartition(" -> ")[2]: sizes for place, _, sizes in places}
    missing = [n for n in result.missing if n not in wrong and id(target[n]) not in given]
    misfits = [f"{name}: {sizes}" for name, sizes in wrong.items() if not name.endswith(_OPTIONAL)]
    return Fit(
        weights, target, result.weights, misfits, missing, result.unused,
        described(weights.tensors), result.library, result.adapted,
    )  # fmt: skip


def _by_own_names(weights: Weights, target: Mapping[str, Tensor]) -> Fit:
    source = weights.tensors
    if weights.heuristics:
        source = _aligned(weights, target)
    names = {plain_name(name): name for name in target}
    loaded: dict[str, Tensor] = {}
    misfits: list[str] = []
    unused: list[str] = []
    # Names that are the model's as they stand go before those that are only after a change.
    for name in sorted(source, key=lambda n: n not in target):
        wanted = next((names[n] for n in spellings(name) if n in names), None)
        if wanted is None or wanted in loaded:
            unused.append(name)
        elif (difference := _difference(source[name], target[wanted])) is None:
            loaded[wanted] = source[name]
        else:
            misfits.append(f"{wanted}: {difference}")
    absent = [n for n in target if n not in loaded and not n.endswith(_OPTIONAL)]
    if weights.heuristics:
        misfits += _misfits_by_end(source, target, absent, unused)
    wrong = {text.partition(":")[0] for text in misfits}
    given = {id(target[name]) for name in loaded}  # one tensor may have several names
    missing = [
        n for n in absent
        if n not in wrong and id(target[n]) not in given and not _folded(n, weights, loaded)
    ]  # fmt: skip
    misfits = [text for text in misfits if not text.partition(":")[0].endswith(_OPTIONAL)]
    return Fit(weights, target, loaded, misfits, missing, unused)


def _aligned(weights: Weights, target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the model's names, by Detectron2's rules."""
    try:
        return dict(
            align_and_update_state_dicts(
                dict(target), dict(weights.tensors), c2_conversion=weights.author == "Caffe2"
            )
        )
    except ValueError as error:
        raise WeightsError(f"{weights.origin} does not fit the model: {error}") from None


def _misfits_by_end(
    source: Mapping[str, Tensor], target: Mapping[str, Tensor], absent: list[str], unused: list[str]
) -> list[str]:
    """Tensors that Detectron2's rules leave out for their size; they are taken from ``unused``."""
    result = []
    for name in absent:
        parts = name.split(".")
        ends = (".".join(parts[i:]) for i in range(len(parts)))
        end = next((e for e in ends if e in unused), None)
        if end is not None:
            unused.remove(end)
            result.append(f"{name}: {_difference(source[end], target[name])}")
    return result


def _folded(name: str, weights: Weights, loaded: Mapping[str, Tensor]) -> bool:
    """Whether Caffe2 folds a statistic into the scale: then the 0 or 1 of the start is right."""
    layer, _, parameter = name.rpartition(".")
    folds = weights.author == "Caffe2" and parameter in ("running_mean", "running_var")
    return folds and f"{layer}.weight" in loaded


def _difference(found: Tensor, wanted: Tensor) -> str | None:
    if found.shape != wanted.shape:
        return f"{tuple(found.shape)} in the file, {tuple(wanted.shape)} in the model"
    if wanted.is_floating_point() and not found.is_floating_point():
        return f"{found.dtype} in the file, {wanted.dtype} in the model"
    return None


def next_to_nothing(count: int, source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> bool:
    """Whether so few tensors of a file fit a model that the file must be meant for another one."""
    return bool(target) and count < max(1, _LEAST_SHARE * min(len(source), len(target)))


def check_start(found: Fit) -> None:
    """Refuse weights of which next to nothing fits, or that hold NaN.

    Raises:
        WeightsError: says what the file looks like and what the model wants.
    """
    _check_finite(found)
    tensors = found.weights.tensors
    if next_to_nothing(found.count, tensors, found.target):
        raise WeightsError(
            f"{found.weights.origin} does not fit the model: {found.count} of the model's "
            f"{found.total} tensors are in it with their size. The file has {len(tensors)}, such "
            f"as {_examples(tensors)}; the model wants {_examples(found.target)}.{_advice(tensors)}"
        )


def _examples(tensors: Mapping[str, Tensor]) -> str:
    large = [(name, value) for name, value in tensors.items() if value.dim() > 1]
    return ", ".join(f"{name} {tuple(value.shape)}" for name, value in large[:3]) or named(tensors)


def _advice(tensors: Mapping[str, Tensor]) -> str:
    kind, depth = described(tensors), depth_of_resnet(tensors)
    looks = f" It looks like {kind}" if kind else ""
    if depth:
        return (
            f"{looks}: that fits MODEL.BACKBONE.NAME build_resnet_backbone or "
            f"build_resnet_fpn_backbone with MODEL.RESNETS.DEPTH {depth}, and build_timm_backbone "
            f"with MODEL.TIMM.NAME resnet{depth}."
        )
    if kind == "torchvision VGG":
        return f"{looks}: that fits MODEL.BACKBONE.NAME build_vgg_backbone of its depth and norm."
    if kind.startswith(("timm", "efficientnet_pytorch")):
        return (
            f"{looks}: that fits MODEL.BACKBONE.NAME build_timm_backbone or "
            "build_timm_fpn_backbone with MODEL.TIMM.NAME of the same network."
        )
    own = 'Name a file that this model wrote; MODEL.WEIGHTS "" starts from random weights.'
    return f"{looks}. {own}" if looks else f" {own}"


def check_whole(found: Fit, *, other_sizes: bool = False) -> None:
    """Demand every tensor of the model, and nothing that shows the file to be another model's.

    Args:
        found: file and model.
        other_sizes: allow tensors of another size.

    Raises:
        WeightsError: counts and names what is missing or does not fit, and says what to do.
    """
    _check_finite(found)
    foreign = found.foreign()
    other_size = found.misfits or found.adapted
    if found.missing or foreign or (other_size and not other_sizes):
        raise WeightsError(
            f"{found.weights.origin} is not this model, of which every tensor is needed: {found}. "
            + (
                "To start anew from what fits, set MODEL.WEIGHTS to it and OUTPUT_DIR to another "
                "folder, without --resume."
                if other_sizes
                else "Give the configuration that the file was trained with (config.yaml of its "
                "run; keys after it may have changed the model), or the weights that belong to "
                "this one."
            )
        )


def _check_finite(found: Fit) -> None:
    wrong = nonfinite_names(found.loaded)
    if wrong:
        raise WeightsError(
            f"{found.weights.origin} holds NaN or infinity in {len(wrong)} tensors: {named(wrong)}"
            ". Its training failed; name a checkpoint from before."
        )


def load_into(found: Fit, model: nn.Module) -> None:
    """Copy what fits into the model."""
    state = model.state_dict()
    # Names and versions are the model's own by now: its modules need not convert anything.
    loaded = type(state)(found.loaded)
    loaded._metadata = state._metadata
    model.load_state_dict(loaded, strict=False)
