"""Make Detectron2 (registry release 0.6 to upstream main) run on a current Python stack.

``install()`` puts one finder in front of Python's import system. It acts on ``detectron2.*``
modules alone, while and after they load, and touches only what is missing there:

=========================  =====================================================================
gone                       repair
=========================  =====================================================================
``np.bool, np.int, ...``   the module's own ``np`` gains the aliases (NumPy itself is unchanged)
``PIL.Image.LINEAR``       present while the module's body runs, then removed again
``pkg_resources``          stands in while the module's body runs (setuptools 81 removed it)
``detectron2._C``          a placeholder that answers the version questions of ``default_setup``
                           and says what is missing when an operator is used; ``COCOEvaluator``
                           runs pycocotools' own evaluation
``random.sample`` of sets  ``MapDataset`` draws the next record where a mapper gives None
``_LRScheduler`` as base   the hook ``LRScheduler`` keeps the state of PyTorch's schedulers
=========================  =====================================================================

Two modules of others are treated as well, for the time alone: they import PyTorch's compiler, which
takes 2 to 3 seconds. torchvision's RoIAlign does for a question that it asks on first use, timm's
``layers.typing`` for a decorator that keeps functions out of ``torch.compile``.

A stack on which nothing is missing is left as it is. Run with Detectron2 0.6 and upstream main of
June 2026 (02b5c4e, without its extension) on Python 3.11 with PyTorch 2.14.1, NumPy 2.4.6, Pillow
13.0 and setuptools 84, and with 0.6 on Python 3.10 with PyTorch 2.11, NumPy 1.26.4, Pillow 9.5 and
setuptools 69. ``tests/test_compat.py`` removes each thing and shows its repair. This module stands
alone: it imports nothing of the package, so that it can come first.

A second finder, behind all others, knows modules of this package that have moved: their old names
give the new ones, with a warning that says so.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import random
import sys
import types
import warnings
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from typing import Any

PACKAGE = "detectron2"
EXTENSION = f"{PACKAGE}._C"
ROI_ALIGN, COMPILER = "torchvision.ops.roi_align", "torch._dynamo.utils"
TIMM_DECORATOR = "timm.layers.typing"

# Modules of this package by the names that scripts may know them by.
MOVED = {
    f"seg_plugins.{old}": f"seg_plugins.{new}"
    for old, new in {
        "data.array_io": "io.arrays",
        "data.file_kind": "io.file_kind",
        "data.image_io": "io.images",
        "data.label_encoding": "io.label_encoding",
        "data.nifti": "io.nifti",
        "data.tiff": "io.tiff",
        "engine.best_metric": "engine.checks.best_metric",
        "engine.consistency": "engine.checks.consistency",
        "engine.safe_load": "io.weights.safe_load",
        "engine.weights_file": "io.weights.safetensors_file",
        "engine.weights_fit": "io.weights.fit",
        "engine.weights_layout": "io.weights.layout",
        "export.rcnn": "export.instances",
        "modeling.weight_conversion": "io.weights.conversion",
    }.items()
}

# What NumPy 1.24 removed; each alias was the builtin itself. (NumPy 2 has np.bool again.)
NUMPY_ALIASES = {
    "bool": bool, "int": int, "float": float, "complex": complex, "object": object, "str": str,
}  # fmt: skip

# Upstream warnings that no user of this package can act on: exact message, category, module.
KNOWN_WARNINGS: tuple[tuple[str, type[Warning]], ...] = (
    (
        r"torch\.meshgrid: in an upcoming release, it will be required to pass the indexing "
        r"argument\.",
        UserWarning,
    ),
    (
        r"`torch\.cuda\.amp\.(autocast|GradScaler)\(args\.\.\.\)` is deprecated\. Please use "
        r"`torch\.amp\.(autocast|GradScaler)\('cuda', args\.\.\.\)` instead\.",
        FutureWarning,
    ),
    (
        r"`torch\.jit\.script` is deprecated\. Please switch to `torch\.compile` or "
        r"`torch\.export`\.",
        FutureWarning,
    ),
)


class MissingExtensionError(AttributeError):
    """An operator of Detectron2's C++ extension was used, and the extension is not built."""


class _Placeholder(types.ModuleType):
    """Stands in for ``detectron2._C``; see the module's table."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        raise MissingExtensionError(
            f"detectron2._C.{name} is not available: this Detectron2 was installed without its "
            "C++ extension, which deformable convolution on a GPU and rotated boxes need. Install "
            "upstream with it: make setup DETECTRON2=git (needs GitHub and a compiler), or choose "
            "a configuration without these operators."
        )


class _PlaceholderLoader(importlib.abc.Loader):
    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return _Placeholder(spec.name, "Placeholder: Detectron2 was installed without extension.")

    def exec_module(self, module: types.ModuleType) -> None:
        # What default_setup's environment report asks for.
        module.__dict__.update(
            get_compiler_version=lambda: "none (Detectron2's extension is not built)",
            get_cuda_version=lambda: "none",
            has_cuda=lambda: False,
        )


class _RepairingLoader(importlib.abc.Loader):
    """Runs a Detectron2 module's own loader with the missing names in place."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> types.ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        with _pillow_linear(), _pkg_resources():
            self.loader.exec_module(module)
        _repair(module)

    def __getattr__(self, name: str) -> object:
        return getattr(self.loader, name)  # get_source, is_package, ... for inspect and pkgutil


class _CompilerLater(_RepairingLoader):
    """Runs a module that imports a question of PyTorch's compiler, which is imported to answer."""

    def exec_module(self, module: types.ModuleType) -> None:
        try:
            with _compiler_later():
                self.loader.exec_module(module)
        except ImportError:  # it wants more of the compiler than the stand-in has
            self.loader.exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: types.ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname == ROI_ALIGN:
            repair: type[_RepairingLoader] = _CompilerLater
        elif fullname == TIMM_DECORATOR or f"{fullname}.".startswith(f"{PACKAGE}."):
            repair = _RepairingLoader
        else:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None and fullname == EXTENSION:
            return ModuleSpec(EXTENSION, _PlaceholderLoader(), origin="placeholder")
        source = importlib.machinery.SourceFileLoader
        if spec is not None and isinstance(spec.loader, source):
            spec.loader = repair(spec.loader)
        return spec


@contextlib.contextmanager
def _pillow_linear() -> Iterator[None]:
    """Detectron2 0.6 takes ``Image.LINEAR`` (removed in Pillow 10) as a default argument."""
    from PIL import Image

    if hasattr(Image, "LINEAR"):
        yield
        return
    Image.LINEAR = Image.Resampling.BILINEAR  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del Image.LINEAR  # type: ignore[attr-defined]


@contextlib.contextmanager
def _pkg_resources() -> Iterator[None]:
    """``detectron2.model_zoo`` finds its YAML files through ``pkg_resources``."""
    name = "pkg_resources"
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        yield
        return
    stand_in = types.ModuleType(name, "The two functions of pkg_resources that Detectron2 calls.")
    stand_in.resource_filename = _resource_filename  # type: ignore[attr-defined]
    stand_in.resource_exists = _resource_exists  # type: ignore[attr-defined]
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        sys.modules.pop(name, None)


@contextlib.contextmanager
def _compiler_later() -> Iterator[None]:
    """``torchvision.ops.roi_align`` takes ``is_compile_supported`` from ``torch._dynamo``."""
    if COMPILER in sys.modules:
        yield
        return
    stand_in = types.ModuleType(COMPILER, "The function that torchvision's RoIAlign calls.")
    stand_in.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    sys.modules[COMPILER] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(COMPILER) is stand_in:
            del sys.modules[COMPILER]


def _is_compile_supported(device_type: str) -> bool:
    return bool(importlib.import_module(COMPILER).is_compile_supported(device_type))


def _resource_filename(package: str, resource: str) -> str:
    import os

    module = importlib.import_module(package)
    return os.path.join(os.path.dirname(str(module.__file__)), *resource.split("/"))


def _resource_exists(package: str, resource: str) -> bool:
    import os

    return os.path.exists(_resource_filename(package, resource))


def _repair(module: Any) -> None:
    """Mend a Detectron2 module whose body has run."""
    import numpy

    if vars(module).get("np") is numpy:
        module.np = numpy_with_aliases() or numpy
    if module.__name__ in _REPAIRS:
        _REPAIRS[module.__name__](module)


def _evaluate_by_pycocotools(module: Any) -> None:
    """The faster evaluation of ``COCOEvaluator`` calls the extension for every image."""
    if isinstance(module._C, _Placeholder):
        module.COCOeval_opt = module.COCOeval


class SetSamplingRandom(random.Random):
    """A generator that draws from a set too, as Python's did before 3.11."""

    def sample(self, population: Any, k: int, **options: Any) -> list[Any]:
        """``random.Random.sample``, of a set in the order of its iteration."""
        if isinstance(population, (set, frozenset)):
            population = tuple(population)
        return super().sample(population, k, **options)


def _sample_sets(module: Any) -> None:
    """``MapDataset`` makes its generator by ``random.Random``."""
    if sys.version_info >= (3, 11) and module.random is random:
        module.random = types.ModuleType("random", "random, with a generator that samples sets.")
        vars(module.random).update(vars(random), Random=SetSamplingRandom)


def _keep_scheduler_state(module: Any) -> None:
    """0.6 asks for ``_LRScheduler``, which since PyTorch 2.0 is not its schedulers' base."""
    from torch.optim import lr_scheduler

    if hasattr(module, "_LRScheduler") or lr_scheduler._LRScheduler in lr_scheduler.StepLR.mro():
        return

    def state_dict(self: Any) -> dict[str, Any]:
        kept = isinstance(self.scheduler, lr_scheduler.LRScheduler)
        return self.scheduler.state_dict() if kept else {}

    def load_state_dict(self: Any, state_dict: dict[str, Any]) -> None:
        if isinstance(self.scheduler, lr_scheduler.LRScheduler):
            logging.getLogger(module.__name__).info("Loading scheduler from state_dict ...")
            self.scheduler.load_state_dict(state_dict)

    module.LRScheduler.state_dict = state_dict
    module.LRScheduler.load_state_dict = load_state_dict


def _disable_later(module: Any) -> None:
    """timm's decorator asks the compiler when it decorates; PyTorch's own, at the first call."""
    import torch

    later = getattr(torch, "_disable_dynamo", None)
    if later is not None and module.disable_compiler is torch.compiler.disable:
        module.disable_compiler = later


_REPAIRS = {
    TIMM_DECORATOR: _disable_later,
    f"{PACKAGE}.evaluation.fast_eval_api": _evaluate_by_pycocotools,
    f"{PACKAGE}.data.common": _sample_sets,
    f"{PACKAGE}.engine.hooks": _keep_scheduler_state,
}


def numpy_with_aliases() -> types.ModuleType | None:
    """A view of NumPy with the aliases that it lacks, or None when it lacks none."""
    import numpy

    present = vars(numpy)
    missing = {name: alias for name, alias in NUMPY_ALIASES.items() if name not in present}
    if not missing:
        return None
    view = sys.modules.get(__name__ + ".numpy")
    if view is None:
        view = types.ModuleType("numpy", "NumPy with the aliases that Detectron2 0.6 uses.")
        view.__dict__.update(present)
        view.__dict__.update(missing)
        view.__dict__["__getattr__"] = lambda name: getattr(numpy, name)  # lazy submodules
        sys.modules[__name__ + ".numpy"] = view
    return view


class _Moved(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the old names of :data:`MOVED`, which no other finder does."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: types.ModuleType) -> None:
        new = MOVED[module.__name__]
        warnings.warn(f"{module.__name__} is {new} now", FutureWarning, stacklevel=2)
        sys.modules[module.__name__] = importlib.import_module(new)


def install() -> None:
    """Install the finders and the warning filters; a second call changes nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
        sys.meta_path.append(_Moved())
    for message, category in KNOWN_WARNINGS:
        warnings.filterwarnings("ignore", message=message, category=category)
    # Modules that were imported before this package: what can still be repaired, is.
    for name, module in list(sys.modules.items()):
        if name.startswith(PACKAGE + ".") and module is not None:
            _repair(module)
