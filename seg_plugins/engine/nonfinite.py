"""NaN and infinity: the error that stops training, and the small file that helps to find why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..io.errors import SegPluginsError
from ..io.files import write_atomically

# Names of parameters in the message and the file: the first show where it began.
_MAX_NAMES = 50


class NonFiniteError(SegPluginsError, FloatingPointError):
    """A loss, gradient, box or weight became NaN or infinite; names iteration and image files."""


def write_dump(folder: Path, iteration: int, rank: int, content: Mapping[str, Any]) -> Path:
    """Write ``nan_dump/iteration_N_process_R.json`` below a folder.

    A sample is a pure function of seed and stream position, so positions suffice to make the
    batch again: ``trainer.train_loader.stream[position]``.
    """
    path = folder / "nan_dump" / f"iteration_{iteration:07d}_process_{rank}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"iteration": iteration, "process": rank, **content}, indent=1)
    write_atomically(path, lambda file: file.write(text.encode()))
    return path


def bad_names(names: Sequence[str], values: torch.Tensor) -> list[str]:
    """Names of those values (one for each name) that are not finite; at most 50."""
    finite = torch.isfinite(values.detach().float().cpu())
    return [name for name, ok in zip(names, finite.tolist(), strict=True) if not ok][:_MAX_NAMES]


def nonfinite_names(state: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity; at most 50."""
    names = [name for name, value in state.items() if torch.is_floating_point(value)]
    if not names:
        return []
    # 0 for a finite tensor, NaN otherwise; one transfer for all.
    marks = torch.stack([(state[name].detach().float() * 0).sum().cpu() for name in names])
    return bad_names(names, marks)


def require_finite(state: Mapping[str, torch.Tensor], what: str) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        NonFiniteError: with the names of the tensors.
    """
    wrong = nonfinite_names(state)
    if wrong:
        raise NonFiniteError(
            f"{what} was not written: NaN or infinity in {', '.join(wrong[:5])}"
            + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
            + ". --resume continues from the checkpoint before; lower SOLVER.BASE_LR."
        )
