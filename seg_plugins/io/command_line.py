"""How the package's command is typed on this machine, for messages that advise it."""

from __future__ import annotations

import shlex
import shutil
import sys


def command_line(*words: object) -> str:
    """A command of ``seg-plugins`` that can be pasted as it is.

    Args:
        words: the command's name and its arguments.

    Returns:
        ``seg-plugins ...`` where that is on ``PATH``; else this interpreter's
        ``python -m seg_plugins ...``, as in an environment that is not activated.
    """
    start = (
        ["seg-plugins"] if shutil.which("seg-plugins") else [sys.executable, "-m", "seg_plugins"]
    )
    return shlex.join([*start, *map(str, words)])
