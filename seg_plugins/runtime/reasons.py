"""What a runtime says when it fails, in one line that names the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .errors import ModelFileError


def first_line(error: Exception, *, last: bool = False) -> str:
    """The line of an error's text that says something."""
    lines = [line.strip(" .") for line in str(error).splitlines() if line.strip(" .")]
    return lines[-1 if last else 0] if lines else repr(error)


def cannot_open(path: Path, runtime: str, reason: str) -> ModelFileError:
    """For a file that is damaged or of another kind."""
    return ModelFileError(
        f"{path}: {runtime} does not open it: {reason}. Export it again, or try a newer {runtime}"
    )


def cannot_run(
    path: Path, runtime: str, images: np.ndarray, reason: str, more: str = ""
) -> ModelFileError:
    """For an input that a file does not take; `more`: another way out."""
    size = " x ".join(map(str, images.shape))
    return ModelFileError(
        f"{path}: {runtime} cannot run it on {size}: {reason}. It takes as many channels as in "
        "training, and no image smaller than its window (MODEL.INFERENCE.WINDOW)"
        f"{more}"
    )
