"""NIfTI in, slice by slice, and NIfTI out: nibabel reads what is written."""

from __future__ import annotations

import json

from seg_plugins.data import DatasetError
from seg_plugins.evaluation import EvaluationError
from seg_plugins.evaluation.files import score_files
from seg_plugins.prediction.inputs import find_sources
from seg_plugins.prediction.outputs import OutputOptions
from seg_plugins.prediction.run import RunOptions, run

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from stubs import SEMANTIC, predictor
from torch import nn

nib = pytest.importorskip("nibabel")


class Levels(nn.Module):
    """The class of a pixel is its first channel divided by 100."""

    def __init__(self, channel=0):
        super().__init__()
        self.channel, self.seen = channel, []

    def forward(self, samples):
        self.seen += [sample["image"].clone() for sample in samples]
        levels = torch.arange(3).reshape(-1, 1, 1) * 100.0
        return [{"sem_seg": -((s["image"][self.channel] - levels) ** 2)} for s in samples]


def volume(path, dtype=np.int16, byteorder="<"):
    """Classes 0..2 as values 0, 100, 200; (z, y, x) of them, and the image as nibabel has it."""
    classes = np.random.default_rng(0).integers(0, 3, (4, 6, 7))
    affine = np.array([[-0.7, 0.1, 0, 11], [0.1, 0.8, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])
    header = nib.Nifti1Header(endianness=byteorder)
    header.set_xyzt_units("mm")
    header.set_data_dtype(dtype)
    image = nib.Nifti1Image((classes * 100).astype(dtype).T, affine, header)
    image.header["cal_max"], image.header["descrip"] = 200, b"a scan"
    image.set_qform(affine, code=1, strip_shears=True)
    nib.save(image, path)
    return classes, nib.load(path)


def raw(model, channels=1, **more):
    found = predictor(model, SEMANTIC, "raw", **more)
    found.preparation.mean = [0.0] * channels
    return found


def predict(model, path, out, pages="all", save=("mask",), **options):
    sources = find_sources([str(path)], out, pages)
    return run(model, sources, out, RunOptions(OutputOptions(save, **options)))


@pytest.mark.parametrize(("name", "byteorder"), [("a.nii", "<"), ("a.nii.gz", "<"), ("a.nii", ">")])
def test_labels_of_a_volume_lie_where_it_does(tmp_path, name, byteorder):
    classes, image = volume(tmp_path / name, byteorder=byteorder)
    summary = predict(raw(Levels()), tmp_path / name, tmp_path / "out", save=("mask", "objects"))
    assert (summary.done, summary.failed) == (1, [])
    for kind, dtype in (("mask", np.uint8), ("objects", np.uint16)):
        found = nib.load(tmp_path / f"out/{kind}/a.nii.gz")
        assert np.array_equal(found.affine, image.affine)
        assert found.header.get_zooms() == image.header.get_zooms()
        assert found.header.get_xyzt_units() == ("mm", "unknown")
        assert np.array_equal(found.get_qform(), image.get_qform())
        assert found.get_data_dtype().newbyteorder("=") == dtype
        assert (float(found.header["cal_max"]), found.header["descrip"]) == (0, b"a scan")
    mask = nib.load(tmp_path / "out/mask/a.nii.gz")
    assert np.array_equal(np.asarray(mask.dataobj).T, classes)


def test_scaled_values_are_seen_scaled(tmp_path):
    classes, image = volume(tmp_path / "a.nii", np.float32)
    image.header.set_slope_inter(1, 0)
    stored = nib.Nifti1Image((classes * 50 + 500).astype(np.int16).T, image.affine)
    stored.header.set_slope_inter(2, -1000)
    content = bytearray(stored.to_bytes())  # nibabel would divide what it is given
    (tmp_path / "b.nii").write_bytes(content)
    predict(raw(Levels()), tmp_path / "b.nii", tmp_path / "out")
    found = nib.load(tmp_path / "out/mask/b.nii.gz")
    oracle = np.rint(nib.load(tmp_path / "b.nii").get_fdata() / 100).clip(0, 2)
    assert np.array_equal(np.asarray(found.dataobj), oracle)
    assert found.header.get_slope_inter() in ((None, None), (1, 0))


def test_a_model_of_three_channels_sees_the_neighbours(tmp_path):
    classes, _ = volume(tmp_path / "a.nii")
    model = Levels(channel=1)
    predict(raw(model, 3), tmp_path / "a.nii", tmp_path / "out")
    found = np.asarray(nib.load(tmp_path / "out/mask/a.nii.gz").dataobj).T
    assert np.array_equal(found, classes)
    seen = torch.stack(model.seen).numpy()
    padded = np.pad(classes * 100, ((1, 1), (0, 0), (0, 0)), "edge")
    assert np.array_equal(seen, np.stack([padded[z : z + 3] for z in range(4)]))
    summary = predict(raw(Levels(), 2), tmp_path / "a.nii", tmp_path / "out2")
    assert "the model takes 2 channels; those of a slice and its" in summary.failed[0][1]


def test_slices_that_are_not_asked_for_belong_to_no_class(tmp_path):
    classes, _ = volume(tmp_path / "a.nii")
    predict(raw(Levels()), tmp_path / "a.nii", tmp_path / "out", "1,3")
    found = np.asarray(nib.load(tmp_path / "out/mask/a.nii.gz").dataobj).T
    assert np.array_equal(found[[1, 3]], classes[[1, 3]])
    assert (found[[0, 2]] == 255).all()


def test_a_volume_without_pages_names_the_flag(tmp_path):
    volume(tmp_path / "a.nii")
    summary = predict(raw(Levels()), tmp_path / "a.nii", tmp_path / "out", "")
    assert "4 slices where the model takes 1 channel" in summary.failed[0][1]
    assert "--pages all" in summary.failed[0][1]


def test_nan_in_a_slice_leaves_no_labels(tmp_path):
    _, image = volume(tmp_path / "a.nii", np.float32)
    values = np.asarray(image.dataobj).copy()
    values[0, 0, 2] = np.nan
    nib.save(nib.Nifti1Image(values, image.affine), tmp_path / "b.nii")
    summary = predict(raw(Levels()), tmp_path / "b.nii", tmp_path / "out")
    assert "slice 2: 1 of 42 pixels are NaN" in summary.failed[0][1]
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


@pytest.fixture
def slices(tmp_path):
    """Slices of the volume a with a truth of their own, as prepare_lits.py names them."""
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, (4, 6, 7)).astype(np.uint8)
    records = []
    for z in range(4):
        path = tmp_path / f"truth/a_{z:04d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(truth[z]).save(path)
        records.append({"file_name": f"a_{z:04d}.npy", "sem_seg_file_name": str(path)})
    name = f"slices_{tmp_path.name}"
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(
        stuff_classes=["other", "liver", "tumour"], ignore_label=255,
        evaluator_type="sem_seg_volume",
    )  # fmt: skip
    yield name, truth
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_labels_of_volumes_are_scored_against_slices(tmp_path, slices):
    name, truth = slices
    _, image = volume(tmp_path / "a.nii")
    predict(raw(Levels()), tmp_path / "a.nii", tmp_path / "out")
    scores = score_files(name, tmp_path / "out/mask", tmp_path / "scores")["volume"]
    found = np.asarray(nib.load(tmp_path / "out/mask/a.nii.gz").dataobj).T
    for k, one in enumerate(("other", "liver", "tumour")):
        both = ((found == k) & (truth == k)).sum()
        dice = 200 * both / ((found == k).sum() + (truth == k).sum())
        assert scores[f"Dice-{one}"] == pytest.approx(dice)
    content = json.loads((tmp_path / "scores/sem_seg_results.json").read_bytes())
    assert content["volumes"]["a"]["liver"] == pytest.approx(scores["Dice-liver"], abs=1e-4)
    short = nib.Nifti1Image(np.asarray(found[:3].T), image.affine)
    nib.save(short, tmp_path / "out/mask/a.nii.gz")
    with pytest.raises((EvaluationError, DatasetError), match=r"3 slices, and '.*' has 4 of 'a'"):
        score_files(name, tmp_path / "out/mask")
