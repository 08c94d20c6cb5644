"""How the package's command is typed on this machine, for messages that advise it."""

from __future__ import annotations

import shlex
import shutil
import sys
import sysconfig
from pathlib import Path


def command_line(*words: object) -> str:
    """A command of ``seg-plugins`` that can be pasted as it is.

    Args:
        words: the command's name and its arguments.

    Returns:
        ``seg-plugins ...`` where the one on ``PATH`` is this interpreter's; else its
        ``python -m seg_plugins ...``, as in an environment that is not activated.
    """
    found = shutil.which("seg-plugins")
    here = found is not None and Path(found).parent == Path(sysconfig.get_path("scripts"))
    start = ["seg-plugins"] if here else [sys.executable, "-m", "seg_plugins"]
    return shlex.join([*start, *map(str, words)])
