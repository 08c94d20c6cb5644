"""Where the weights of the zoo's models are: in the package, in a folder, or behind a URL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from detectron2.utils.file_io import PathManager

from ..io.files import sha256
from ..io.weights import WeightsError
from ..io.weights.addresses import Address
from .models import get

# A folder, or the address of one (https://...), with the files of a release.
FOLDER_VARIABLE = "SEG_PLUGINS_WEIGHTS"


class ZooWeights(Address):
    """``zoo://NAME``: the weights of a model of the table, compared with its SHA-256.

    A file of the installed package comes first, then ``$SEG_PLUGINS_WEIGHTS``: a folder, or a URL
    whose files are kept in fvcore's cache.
    """

    prefix = "zoo://"

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        """The file.

        Raises:
            ConfigError: an unknown name.
            WeightsError: the file is nowhere, or is another one.
            OSError: it could not be fetched.
        """
        model = get(path.removeprefix(self.prefix))
        shipped = Path(__file__).with_name(model.file)
        where = os.environ.get(FOLDER_VARIABLE, "")
        if shipped.is_file():
            file = shipped
        elif "://" in where:
            url = f"{where.rstrip('/')}/{model.file}"
            file = Path(PathManager.get_local_path(url, force=force))
        else:
            file = Path(where).expanduser() / model.file
            if not where or not file.is_file():
                raise WeightsError(
                    f"{path}: {model.file} does not come with the package"
                    + (f" and is not in {where}" if where else "")
                    + f": set {FOLDER_VARIABLE} to the folder, or the URL, that holds the files of "
                    "a release"
                )
        digest = sha256(file)
        if digest != model.sha256:
            raise WeightsError(
                f"{path}: {file} has SHA-256 {digest[:12]}..., not {model.sha256[:12]}...: it is "
                "of another release, or damaged. Fetch it again"
            )
        return str(file)
