"""Pickles give arrays and plain containers, or an error, and call nothing."""

from __future__ import annotations

import argparse
import collections
import os
import pickle
import shlex

from seg_plugins.io.weights import WeightsError, read_weights
from seg_plugins.io.weights.safe_load import UnsafeFileError, load_pickle, load_torch

import numpy as np
import pytest
import torch

CONTENT = {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "blobs": collections.OrderedDict(a=np.float64(1.5), b=np.int64(2)),
    "text": "conv1_w", "bytes": b"\xff\x00", "list": [1, (2, None)],
}  # fmt: skip


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_containers_come_back(tmp_path, protocol):
    file = tmp_path / "weights.pkl"
    file.write_bytes(pickle.dumps(CONTENT, protocol=protocol))
    found = load_pickle(file)
    np.testing.assert_array_equal(found.pop("weights"), CONTENT["weights"])
    assert found == {k: v for k, v in CONTENT.items() if k != "weights"}


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.what = function, arguments

    def __reduce__(self):
        return self.what


CALLS = [
    (os.system, "touch {}"), (eval, "open('{}', 'w')"), (exec, "open('{}', 'w')"),
    (os.mkdir, "{}"), (open, "{}", "w"), (np.save, "{}", 1),
    (__import__, "antigravity"), (np.load, "{}", None, True), (torch.load, "{}"),
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS, ids=lambda c: c[0].__name__)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_calls_are_refused(tmp_path, call, protocol):
    target = tmp_path / "executed"
    function, *arguments = (a.format(target) if isinstance(a, str) else a for a in call)
    file = tmp_path / "evil.pkl"
    file.write_bytes(pickle.dumps({"model": Calls(function, *arguments)}, protocol=protocol))
    with pytest.raises(UnsafeFileError, match=r"refused: it asks for"):
        load_pickle(file)
    assert not target.exists()


def test_arrays_of_objects_and_damaged_files_are_refused(tmp_path):
    file = tmp_path / "a.pkl"
    file.write_bytes(pickle.dumps({"x": np.array([{}, 1], dtype=object)}))
    with pytest.raises(UnsafeFileError, match="Python objects"):
        load_pickle(file)
    whole = pickle.dumps(CONTENT)
    for size in range(0, len(whole) - 1, 7):
        file.write_bytes(whole[:size])
        with pytest.raises(UnsafeFileError, match=r"a\.pkl"):
            load_pickle(file)


def test_containers_that_hold_themselves_end(tmp_path):
    content: dict = {"w": np.ones(2), "list": []}
    content["self"] = content
    content["list"].append(content["list"])
    for save in (pickle.dumps, None):
        file = tmp_path / "a"
        if save:
            file.write_bytes(pickle.dumps(content))
            found = load_pickle(file)
        else:
            torch.save(content, file)
            found = load_torch(file)
        assert found["self"] is found
        np.testing.assert_array_equal(found["w"], np.ones(2))


@pytest.mark.parametrize("call", CALLS, ids=lambda c: c[0].__name__)
@pytest.mark.parametrize("legacy", [False, True])
def test_calls_in_pth_files_are_refused(tmp_path, call, legacy):
    target = tmp_path / "executed"
    function, *arguments = (a.format(target) if isinstance(a, str) else a for a in call)
    content = {
        "model": {"w": torch.ones(2)},
        "args": argparse.Namespace(a=Calls(function, *arguments)),
    }
    file = tmp_path / "evil.pth"
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UnsafeFileError, match=r"Nothing of it was executed"):
        load_torch(file)
    assert not target.exists()


class Settings:
    """A class that a file refers to and this package does not know."""


@pytest.mark.parametrize("name", ["it's weights.pth", "it's weights.pkl"])
def test_the_command_for_a_trusted_file_writes_one_that_is_read(tmp_path, name):
    file = tmp_path / name
    content = {
        "model": {"w": np.arange(3.0), "n": torch.tensor(2)},
        "settings": Settings(), "__author__": "me", "names": {"a", "b"},
    }  # fmt: skip
    if name.endswith("h"):
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content))
    with pytest.raises(WeightsError, match="Nothing of it was executed") as caught:
        read_weights(file)
    python, flag, code = shlex.split(str(caught.value)[str(caught.value).index("python -c") :])
    assert (python, flag) == ("python", "-c")
    exec(code, {})
    found = read_weights(next(tmp_path.glob("*.weights.*")))
    np.testing.assert_array_equal(found.tensors["w"], np.arange(3.0))
    assert found.tensors["n"] == 2
    assert found.author == "me"


def test_pth_files_hold_tensors_only(tmp_path):
    file = tmp_path / "a.pth"
    torch.save({"model": {"w": torch.ones(2)}}, file)
    assert torch.equal(load_torch(file)["model"]["w"], torch.ones(2))
    torch.save({"model": Calls(os.mkdir, str(tmp_path / "executed"))}, file)
    with pytest.raises(UnsafeFileError, match=r"a\.pth could not be read"):
        load_torch(file)
    file.write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(UnsafeFileError, match=r"a\.pth could not be read"):
        load_torch(file)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"junk\n", b"\x89PNG\r\n\x1a\n"])
def test_a_file_of_another_kind_is_called_that(content, tmp_path):
    file = tmp_path / "a.pth"
    file.write_bytes(content)
    with pytest.raises(UnsafeFileError, match=r"a\.pth .*does not begin as .*copy it again"):
        load_torch(file)
