from __future__ import annotations

import json

from seg_plugins.io.weights.safetensors_file import (
    WeightsFileError,
    checksum,
    read_safetensors,
    safetensors_bytes,
)

import pytest
import torch


@pytest.fixture
def state():
    shared = torch.arange(6.0)
    return {
        "a.weight": shared.view(2, 3),
        "a.tied": shared.view(2, 3),  # the format knows no shared memory
        "count": torch.tensor(3),
        "half": torch.ones(2, 2, dtype=torch.bfloat16).t(),
    }


def test_tensors_and_text_come_back(state, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(safetensors_bytes(state, {"classes": '["é<b>"]'}))
    found, text = read_safetensors(tmp_path / "w.safetensors")
    assert json.loads(text["classes"]) == ["é<b>"]
    assert text["sha256"] == checksum(state)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_a_changed_byte_is_found(state, tmp_path):
    content = bytearray(safetensors_bytes(state, {}))
    content[-3] ^= 1
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(WeightsFileError, match="SHA-256"):
        read_safetensors(tmp_path / "w.safetensors")


@pytest.mark.parametrize("content", [b"", b"\x80\x04cos\nsystem\n", b"\xff" * 64])
def test_what_is_no_such_file_is_refused_by_name(content, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(WeightsFileError, match=r"w\.safetensors is not a whole"):
        read_safetensors(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "other", [{"a": torch.zeros(2, 3)}, {"b": torch.zeros(6)}, {"a": torch.zeros(6).int()}]
)
def test_the_checksum_covers_names_types_and_shapes(other):
    assert checksum(other) != checksum({"a": torch.zeros(6)})
