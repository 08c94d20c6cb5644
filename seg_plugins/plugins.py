"""The door for other people's parts: files and modules named with ``--import``, installed packages.

A part registers itself when its module is imported: a head in Detectron2's
``SEM_SEG_HEADS_REGISTRY``, a loss in ``LOSS_REGISTRY``, and so on (docs/extending.md). An installed
package names its modules in its pyproject.toml, and ``import seg_plugins`` imports them::

    [project.entry-points.seg_plugins]
    heads = "my_package.heads"

Nothing in a YAML file or a checkpoint imports code. A run's ``config.yaml`` records in ``IMPORTS``
which modules it was made with, and reading it asks for those that are missing.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from detectron2 import modeling
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from fvcore.common.registry import Registry

from .arguments import commands
from .config import ConfigError, module_of_import
from .data import MAPPER_REGISTRY
from .evaluation import EVALUATOR_REGISTRY
from .modeling.losses import LOSS_REGISTRY

GROUP = "seg_plugins"

_REGISTRIES = [value for value in vars(modeling).values() if isinstance(value, Registry)]
_REGISTRIES += [EVALUATOR_REGISTRY, LOSS_REGISTRY, MAPPER_REGISTRY]

# As given to --import, in order; and the modules of installed packages.
_imported: dict[str, None] = {}
_installed: dict[str, None] = {}


def add_import_argument(parser: argparse.ArgumentParser) -> None:
    """The flag ``--import``, which imports at once; ``args.imports`` has what it named."""
    commands.add_import_argument(parser, ImportAction)


class ImportAction(argparse.Action):
    """Imports a part as soon as the flag is read; a mistake in its name is one in usage."""

    def __call__(  # noqa: D102
        self, parser: Any, namespace: Any, values: Any, option_string: Any = None
    ) -> None:
        try:
            import_parts([values])
        except ConfigError as error:
            parser.error(str(error))
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), values])


def import_parts(names: Iterable[str]) -> None:
    """Import Python files (``heads.py``) and modules (``my_package.heads``), each once.

    A file becomes the module of its name, and its folder the last one that imports look into, so
    that it may have others beside it, and data workers find it.

    Raises:
        ConfigError: there is no such file or module, or its name is another module's.
    """
    for name in names:
        if name.endswith(".py"):
            _import_file(Path(name).expanduser())
        else:
            _import_module(name)
        _imported[name] = None


def _import_file(file: Path) -> None:
    if not file.is_file():
        raise ConfigError(f"--import {file}: there is no such file")
    known = sys.modules.get(file.stem)
    if known is not None:
        if Path(getattr(known, "__file__", None) or "").resolve() == file.resolve():
            return
        raise ConfigError(
            f"--import {file}: a module '{file.stem}' is imported already, from "
            f"{getattr(known, '__file__', 'Python itself')}: give the file another name"
        )
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None  # of a .py file there always is one
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[file.stem]
        raise


def _import_module(name: str) -> None:
    try:
        if not all(part.isidentifier() for part in name.split(".")):  # of a folder, "", ".heads"
            raise ModuleNotFoundError(name=name)
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # of something that the module imports itself
        raise ConfigError(
            f"--import {name}: there is no such module. A file is named with its .py; a module is "
            "installed (pip install), or its folder stands in PYTHONPATH"
        ) from None


def load_entry_points() -> None:
    """Import the modules that installed packages name for this one.

    One that fails is left out with a warning: the others and this package work without it.
    """
    for point in importlib.metadata.entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong there, it is named here
            package = point.dist.name if point.dist else "an installed package"
            warnings.warn(
                f"{package} offers '{point.value}' to seg_plugins, which cannot be imported: "
                f"{type(error).__name__}: {error}",
                stacklevel=2,
            )
        else:
            _installed[point.module] = None


def imports_of(cfg: CfgNode) -> list[str]:
    """What a configuration needs: all that ``--import`` named, and modules of installed packages
    that define a part which the configuration names.
    """
    used = {module for part in _parts_of(cfg) for module in _installed if _defines(module, part)}
    return [*_imported, *sorted(used - {module_of_import(name) for name in _imported})]


def _defines(module: str, part: Any) -> bool:
    defined = getattr(part, "__module__", "")
    return defined == module or defined.startswith(f"{module}.")


def _parts_of(cfg: CfgNode) -> Iterator[Any]:
    """Everything in a registry whose name stands in a configuration."""
    names = set(_words(cfg))
    datasets = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    for name in datasets:
        kinds = MetadataCatalog.get(name).get("evaluator_type") or ()
        names |= {kinds} if isinstance(kinds, str) else set(kinds)
        if name in DatasetCatalog.data:
            yield DatasetCatalog.data[name]
    for registry in _REGISTRIES:
        yield from (registry.get(name) for name in names if name in registry)


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from re.findall(r"\w+", value)
    elif isinstance(value, dict):
        for member in value.values():
            yield from _words(member)
    elif isinstance(value, Sequence):
        for member in value:
            yield from _words(member)
