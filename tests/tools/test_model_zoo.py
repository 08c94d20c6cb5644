"""Zoo rows come from a run's files."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

from seg_plugins.io.weights import read_safetensors

import pytest
import torch

FILE = Path(__file__).resolve().parents[2] / "tools" / "model_zoo.py"


@pytest.fixture
def model_zoo():
    spec = importlib.util.spec_from_file_location("model_zoo", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tmp_path):
    record = {
        "system": "UNet", "datasets": {"train": ["a_train"], "test": ["a_val"]},
        "parameters": 1_234_567, "seed": 5, "iterations": 30, "batch": 8, "seconds": 90.0,
        "hardware": "2 threads, CPU", "command": "train_net.py --config-file x/configs/a/unet.yaml",
    }  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(record))
    lines = [{"iteration": 9, "sem_seg/mIoU": 40.0}, {"iteration": 29, "sem_seg/mIoU": 51.239}]
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "model_final.pth").write_bytes(b"weights")
    return tmp_path


def test_one_row_a_metric_with_the_last_value(model_zoo, run):
    digest = hashlib.sha256(b"weights").hexdigest()[:12]
    assert model_zoo.rows(run) == [
        ["UNet", "a_val", "sem_seg/mIoU", "51.24", "configs/a/unet.yaml SEED 5", "2 threads, CPU",
         "30 x 8", "1.5 min", "1.23 M", digest]
    ]  # fmt: skip
    assert len(model_zoo.COLUMNS) == len(model_zoo.rows(run)[0])


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("train_net.py --config-file a.yaml --num-gpus 1", "a.yaml"),
        (
            "train_net.py --data /home/me/own.yaml SOLVER.EPOCHS 3",
            "--data own.yaml SOLVER.EPOCHS 3",
        ),
        ("t.py --config-file a.yaml --data own.yaml", "a.yaml --data own.yaml"),
        (
            "t.py --resume --config-file /x/configs/b.yaml SEED 3 SOLVER.BASE_LR 1e-3 "
            "DATASETS.TEST '(\"a b\",)' OUTPUT_DIR /o DATASETS.CUSTOM /home/me/own.yaml",
            "configs/b.yaml SOLVER.BASE_LR 1e-3 DATASETS.TEST '(\"a b\",)' "
            "DATASETS.CUSTOM own.yaml",
        ),
    ],
)
def test_a_row_tells_what_the_command_changed(model_zoo, run, command, expected):
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "command": command}))
    assert model_zoo.rows(run)[0][4] == f"{expected} SEED 5"


def test_an_unfinished_run_is_named(model_zoo, run, monkeypatch, capsys):
    (run / "model_final.pth").unlink()
    monkeypatch.setattr("sys.argv", ["model_zoo.py", str(run)])
    assert model_zoo.main() == 1
    assert f"{run} is not a finished run" in capsys.readouterr().err


@pytest.mark.parametrize(("again", "status", "word"), [(51.239, 0, "same"), (50.0, 1, "DIFFERENT")])
def test_verify_evaluates_the_weights_again(
    model_zoo, run, tmp_path, monkeypatch, capsys, again, status, word
):
    """A stand-in for train_net.py that must be asked for these weights, and writes a result."""
    stand_in = tmp_path / "stand_in.py"
    stand_in.write_text(
        "import json, pathlib, sys\n"
        "words = sys.argv\n"
        f"assert words[words.index('MODEL.WEIGHTS') + 1] == {str(run / 'model_final.pth')!r}\n"
        f"assert words[words.index('--config-file') + 1] == {str(run / 'config.yaml')!r}\n"
        "assert '--eval-only' in words\n"
        "folder = pathlib.Path(words[words.index('OUTPUT_DIR') + 1], 'inference')\n"
        "folder.mkdir()\n"
        f"results = {{'results': {{'sem_seg': {{'mIoU': {again}, 'pACC': 9.0}}}}}}\n"
        "(folder / 'sem_seg_results.json').write_text(json.dumps(results))\n"
    )
    monkeypatch.setattr(model_zoo, "TRAIN_NET", stand_in)
    monkeypatch.setattr("sys.argv", ["model_zoo.py", "--verify", str(run)])
    assert model_zoo.main() == status
    assert f"sem_seg/mIoU  51.2390  {again:.4f}  {word}" in capsys.readouterr().out


def test_weights_for_the_zoo_are_halves_but_for_vectors(model_zoo, run):
    """Of the average where there is one, of the best evaluation where there is one."""
    state = {"conv.weight": torch.full((2, 3), 1 / 3), "norm.running_var": torch.tensor([1e6])}
    average = {name: value * 2 for name, value in state.items()}
    torch.save({"model": state}, run / "model_final.pth")
    best = {"model": state, "ema": {"average": average, "updates": 1}}
    torch.save(best, run / "model_best.pth")
    digest = model_zoo.write_weights(run, run / "w.safetensors")
    assert digest == hashlib.sha256((run / "w.safetensors").read_bytes()).hexdigest()
    found, _ = read_safetensors(run / "w.safetensors")
    assert found["conv.weight"].dtype == torch.float16
    torch.testing.assert_close(found["conv.weight"], torch.full((2, 3), 2 / 3).half())
    assert found["norm.running_var"].tolist() == [2e6]  # beyond float16


def test_differences_of_runs_in_pairs(model_zoo, tmp_path, monkeypatch, capsys):
    """B has one pixel of 10 more right in each image: it is ahead in every resample."""
    for name, hits in (("a", [5, 7]), ("b", [6, 8])):
        folder = tmp_path / name / "inference"
        folder.mkdir(parents=True)
        lines = [
            json.dumps({"file_name": f"{i}.png", "by_class": [[0, 10, 10, hit]]})
            for i, hit in enumerate(hits)
        ]
        (folder / "sem_seg_per_image.jsonl").write_text("\n".join(lines))
        iou = 100 * sum(hits) / (40 - sum(hits))
        figures = {"mIoU": iou, "fwIoU": iou, "mACC": 5.0 * sum(hits), "pACC": 5.0 * sum(hits)}
        content = {"dataset": "t_val", "results": {"sem_seg": figures}, "classes": ["x"]}
        (folder / "sem_seg_results.json").write_text(json.dumps(content))
    folders = [str(tmp_path / name) for name in "ab"]
    monkeypatch.setattr("sys.argv", ["model_zoo.py", "--differences", *folders])
    assert model_zoo.main() == 0
    line, accuracy = capsys.readouterr().out.splitlines()
    # Whichever images are drawn, one pixel in ten.
    assert accuracy == (
        "- sem_seg/pACC on t_val: b better than a in 100.0% of 2,000 resamples of 2 images, "
        "by 10.00 [10.00, 10.00]"
    )
    # 14 / 26 - 12 / 28 of the set; 12 / 28 - 10 / 30 of the first image twice, 16 / 24 - 14 / 26
    # of the second, less their mean of 11.08 in expectation.
    text, _, interval = line.partition(" [")
    assert text == (
        "- sem_seg/mIoU on t_val: b better than a in 100.0% of 2,000 resamples of 2 images, "
        "by 10.99"
    )
    low, high = map(float, interval.rstrip("]").split(", "))
    assert (low, high) == pytest.approx((9.43, 12.73), abs=0.1)
    monkeypatch.setattr("sys.argv", ["model_zoo.py", "--differences", folders[0]])
    assert model_zoo.main() == 1
    assert "two runs or more" in capsys.readouterr().err
