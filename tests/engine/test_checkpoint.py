"""Checkpoints are whole or not there, and a damaged one is noticed."""

from __future__ import annotations

import hashlib
import logging
import os
import resource
from concurrent.futures import wait

from seg_plugins.engine import Checkpointer, WeightsError
from seg_plugins.engine.failures import NonFiniteError
from seg_plugins.io.files import (
    WriteError,
    damage,
    remove_temporaries,
    write_atomically,
)

import pytest
import torch
from torch import nn


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_follow_the_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "a.pth", lambda f: f.write(b"a"), with_digest=True)
    finally:
        os.umask(before)
    for name in ("a.pth", "a.pth.sha256"):
        assert (tmp_path / name).stat().st_mode & 0o777 == mode


def test_every_failure_of_the_disk_names_the_file(tmp_path):
    with pytest.raises(WriteError, match=r"gone/a\.pth could not be written .No such file"):
        write_atomically(tmp_path / "gone" / "a.pth", lambda f: f.write(b"a"))
    (tmp_path / "a.pth" / "full").mkdir(parents=True)
    with pytest.raises(WriteError, match=r"a\.pth could not be written"):
        write_atomically(tmp_path / "a.pth", lambda f: f.write(b"a"))
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    class Killed(BaseException):
        pass

    def left(file):
        for path in tmp_path.glob(".*"):
            os.link(path, tmp_path / f"{path.name[:-4]}0.tmp")
        raise Killed

    for name in ("a.pth", "last_checkpoint"):
        with pytest.raises(Killed):
            write_atomically(tmp_path / name, left)
    (tmp_path / ".hidden").touch()
    assert len(list(tmp_path.iterdir())) >= 3
    remove_temporaries(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [".hidden"]


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    file = tmp_path / "model.pth"
    write_atomically(file, lambda f: f.write(b"old"))

    def fail(f):
        f.write(b"half of the new")
        raise ValueError("cannot be stored")

    with pytest.raises(ValueError, match="cannot be stored"):
        write_atomically(file, fail)
    assert file.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["model.pth"]


def test_a_full_disk_names_path_and_size():
    """/dev/full is a disk without space; 3 MB are to be written there."""

    class Full:
        def __init__(self):
            self.file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115

    from seg_plugins.io import files

    full = Full()
    writer = files._Writer(full.file)
    for _ in range(3):
        writer.write(b"x" * 1_000_000)
    full.file.close()
    error = files._explained(files.Path("/tmp/model.pth"), writer.error, writer.size)
    message = str(error)
    assert message.startswith("/tmp/model.pth could not be written")
    assert "No space left" in message
    assert "3.0 MB are needed" in message


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_file_that_may_not_grow_is_an_error_with_path_and_size(tmp_path, share):
    """Wherever the limit falls, also within what a buffer would hold."""
    size = 50_000
    file = tmp_path / "model.pth"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * size), before[1]))
    try:
        with pytest.raises(WriteError, match=r"model\.pth could not be .*0\.1 MB are needed"):
            write_atomically(file, lambda f: [f.write(b"x" * 500) for _ in range(size // 500)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_the_digest_is_that_of_sha256sum_and_both_are_right_while_replacing(tmp_path):
    file = tmp_path / "model.pth"
    for content in (b"one", b"two"):
        write_atomically(file, lambda f, content=content: f.write(content), with_digest=True)
        expected = f"{hashlib.sha256(content).hexdigest()}  model.pth\n"
        assert (tmp_path / "model.pth.sha256").read_text() == expected
    # Killed after the new digest was written, before the file took its name: the old one counts.
    digests = "".join(f"{hashlib.sha256(c).hexdigest()}  model.pth\n" for c in (b"new", b"two"))
    (tmp_path / "model.pth.sha256").write_text(digests)
    assert damage(file) is None
    file.write_bytes(b"new")
    assert damage(file) is None
    file.write_bytes(b"neW")
    assert "SHA-256" in damage(file)


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


@pytest.fixture
def three(tmp_path):
    """A folder with the checkpoints of iterations 0, 1 and 2, whose weights are 0, 1 and 2."""
    model = nn.Linear(3, 2)
    checkpointer = Checkpointer(model, str(tmp_path))
    for i in range(3):
        nn.init.constant_(model.weight, i)
        checkpointer.save(f"model_{i:07d}", iteration=i)
    return checkpointer, tmp_path


def cut(file):
    file.write_bytes(file.read_bytes()[:-100])


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


@pytest.mark.parametrize("harm", [cut, flip, lambda f: f.write_bytes(b""), lambda f: f.unlink()])
@pytest.mark.parametrize("without_digest", [False, True])
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    three, caplog, harm, without_digest
):
    checkpointer, folder = three
    if without_digest:
        for file in folder.glob("*.sha256"):
            file.unlink()
    harm(folder / "model_0000002.pth")
    with caplog.at_level(logging.WARNING):
        extra = checkpointer.resume_or_load("", resume=True)
    assert extra["iteration"] == 1
    assert (checkpointer.model.weight == 1).all()
    assert "model_0000002.pth" in caplog.text


@pytest.mark.parametrize("tag", [None, b"", b"\xff\x00/../nowhere", b"model_0000077.pth"])
def test_a_damaged_tag_does_not_hide_the_checkpoints(three, tag):
    checkpointer, folder = three
    (folder / "last_checkpoint").unlink()
    if tag is not None:
        (folder / "last_checkpoint").write_bytes(tag)
    assert checkpointer.resume_or_load("", resume=True)["iteration"] == 2


def test_when_none_is_intact_nothing_starts_anew_silently(three):
    checkpointer, folder = three
    for file in folder.glob("*.pth"):
        cut(file)
    with pytest.raises(WeightsError, match=r"no checkpoint is intact.*model_0000000\.pth"):
        checkpointer.resume_or_load("", resume=True)


def test_the_last_k_are_kept_and_the_best(tmp_path):
    checkpointer = Checkpointer(nn.Linear(1, 1), str(tmp_path), keep=2)
    checkpointer.save("model_best", tag_last=False)
    for i in range(5):
        checkpointer.save(f"model_{i:07d}")
    names = sorted(file.name for file in tmp_path.glob("*.pth"))
    assert names == ["model_0000003.pth", "model_0000004.pth", "model_best.pth"]
    assert len(list(tmp_path.glob("*.sha256"))) == 3


def test_a_background_save_holds_the_weights_of_its_moment(tmp_path):
    model = nn.Linear(200, 200)
    nn.init.constant_(model.weight, 1.0)
    checkpointer = Checkpointer(model, str(tmp_path), background=True)
    checkpointer.save("model_0000000")
    nn.init.constant_(model.weight, 2.0)
    checkpointer.wait()
    saved = torch.load(tmp_path / "model_0000000.pth", weights_only=True)
    assert (saved["model"]["weight"] == 1).all()


def test_a_background_save_that_fails_says_so_later(tmp_path):
    checkpointer = Checkpointer(nn.Linear(1, 1), str(tmp_path / "gone"), background=True)
    checkpointer.save("model_0000000")
    with pytest.raises(OSError, match="gone"):
        checkpointer.wait()


def test_a_failed_background_save_does_not_stop_the_final_one(tmp_path, caplog):
    folder = tmp_path / "run"
    checkpointer = Checkpointer(nn.Linear(1, 1), str(folder), background=True)
    checkpointer.save("model_0000000")  # no such folder yet
    wait([checkpointer._pending])
    folder.mkdir()
    checkpointer.save("model_final", in_background=False)
    assert damage(folder / "model_final.pth", ours=True) is None
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"
    assert "model_0000000.pth could not be written" in caplog.text
    checkpointer.wait()  # told already


def test_numbered_checkpoints_are_in_order_beyond_seven_digits(tmp_path):
    checkpointer = Checkpointer(nn.Linear(1, 1), str(tmp_path), keep=1)
    for i in (9_999_999, 10_000_000):
        checkpointer.save(f"model_{i:07d}")
    assert [file.name for file in tmp_path.glob("*.pth")] == ["model_10000000.pth"]


def test_weights_with_nan_are_never_written(tmp_path):
    model = nn.Linear(2, 2)
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save("model_0000000")
    with torch.no_grad():
        model.bias[1] = float("nan")
    with pytest.raises(NonFiniteError, match=r"model_0000001\.pth was not written.*bias"):
        checkpointer.save("model_0000001")
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000000.pth"


def test_write_errors_are_os_errors():
    assert issubclass(WriteError, OSError)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    """Tensors and plain containers only."""
    target = tmp_path / "executed"

    class Evil:
        def __reduce__(self):
            return target.touch, ()

    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="plain containers"):
        Checkpointer(nn.Linear(1, 1), "").load(str(tmp_path / "evil.pth"))
    assert not target.exists()
