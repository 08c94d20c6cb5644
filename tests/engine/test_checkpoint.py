"""Checkpoints are whole or not there."""

from __future__ import annotations

from seg_plugins.engine.checkpoint import Checkpointer, write_atomically

import pytest
import torch
from torch import nn


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    file = tmp_path / "model.pth"
    write_atomically(file, lambda f: f.write(b"old"))

    def fail(f):
        f.write(b"half of the new")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomically(file, fail)
    assert file.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["model.pth"]


def test_saved_weights_load_and_the_best_does_not_move_the_last(tmp_path):
    model = nn.Linear(2, 3)
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save("model_0000009", iteration=9)
    checkpointer.save("model_best", tag_last=False)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000009.pth"
    other = nn.Linear(2, 3)
    extra = Checkpointer(other, str(tmp_path)).resume_or_load("", resume=True)
    assert torch.equal(other.weight, model.weight)
    assert extra["iteration"] == 9


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    """torch.load reads tensors and plain containers only."""
    target = tmp_path / "executed"

    class Evil:
        def __reduce__(self):
            return target.touch, ()

    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(Exception, match=r"[Uu]nsupported|[Ww]eights.only|plain containers"):
        Checkpointer(nn.Linear(1, 1), "").load(str(tmp_path / "evil.pth"))
    assert not target.exists()
