"""A stranger's package, each part one file: by --import and installed, without an edit here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from seg_plugins.config import ConfigError
from seg_plugins.engine import argument_parser, setup
from seg_plugins.export import load_for_export
from seg_plugins.prediction import Predictor

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tests/outside"
PARTS = ("head", "loss", "dataset", "mapper", "evaluator")
GUIDE = ROOT / "docs/extending.md"  # its blocks are marked as run by these tests

OPTIONS = [
    *("MODEL.META_ARCHITECTURE", "SemanticSystem", "MODEL.TIMM.NAME", "test_resnet"),
    *("MODEL.TIMM.OUTPUT_STRIDE", "16", "MODEL.SEM_SEG_HEAD.NAME", "PyramidPoolingHead"),
    *("MODEL.SEM_SEG_HEAD.IN_FEATURES", "['res5']", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "2"),
    *("MODEL.SEM_SEG_HEAD.LOSS_TYPE", "cross_entropy + 0.5 * tversky(alpha=0.3)"),
    *("MODEL.PYRAMID_POOLING.BINS", "[1, 2]", "INPUT.MAPPER", "BrightnessMapper"),
    *("DATASETS.TRAIN", "('stripes_train',)", "DATASETS.TEST", "('stripes_val',)"),
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "MODEL.DEVICE", "cpu"),
    *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.WARMUP_ITERS", "0", "SOLVER.AMP.ENABLED", "False"),
    *("SOLVER.BASE_LR", "0.01", "LOG_PERIOD", "1", "SEED", "3"),
    *("SOLVER.CHECKPOINT_PERIOD", "12", "TEST.EVAL_PERIOD", "4", "DATALOADER.NUM_WORKERS", "1"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """DETECTRON2_DATASETS with images of a bright stripe."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 3)):
        (folder / "stripes" / split).mkdir(parents=True)
        for i in range(count):
            label = np.zeros((64, 80), np.uint8)
            start = int(rng.integers(5, 40))
            label[:, start : start + 20] = 1
            image = label[..., None] * 150 + rng.integers(0, 60, (64, 80, 3))
            stem = folder / "stripes" / split / str(i)
            Image.fromarray(image.astype(np.uint8)).save(f"{stem}.png")
            Image.fromarray(label).save(f"{stem}_label.png")
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The interpreter of an environment with everything of this one, and the package editable."""
    folder = tmp_path_factory.mktemp("environment")
    package = folder / "package"
    shutil.copytree(PACKAGE, package)
    new = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(new)], check=True)
    python, paths = new / "bin/python", {"base": str(new), "platbase": str(new)}
    site = Path(sysconfig.get_path("purelib", vars=paths))
    here = [path for path in sys.path if path.endswith("site-packages")]
    (site / "a_checkout.pth").write_text("\n".join([str(ROOT), *here]))
    command = [str(python), "-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", "-e"]
    subprocess.run([*command, str(package)], check=True)
    return python


def run(tool: str, *words: object, python: Path, root: Path) -> None:
    """Run a tool."""
    command = [str(python), str(ROOT / "tools" / tool), *map(str, words)]
    environment = {**os.environ, "DETECTRON2_DATASETS": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]


def test_the_guide_shows_the_files_of_the_package():
    shown = dict(
        re.findall(r"^`(\w+)\.py`:\n\n<!.*?>\n```python\n(.*?)```$", GUIDE.read_text(), re.M | re.S)
    )
    assert shown.keys() == {*PARTS, "system", "representation"}
    for part, code in shown.items():
        assert code == (PACKAGE / "outside_parts" / f"{part}.py").read_text()


def test_each_part_holds_its_contract():
    """The stranger's own tests, in a process of their own: they register names and keys."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "check_parts.py"]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=PACKAGE, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "8 passed" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("how", ["import", "installed"])
def test_a_strangers_parts_work_like_our_own(how, root, tmp_path, request):
    files = [PACKAGE / "outside_parts" / f"{part}.py" for part in PARTS]
    flags = [word for file in files for word in ("--import", str(file))] if how == "import" else []
    python = Path(sys.executable) if how == "import" else request.getfixturevalue("installed")
    call = {"python": python, "root": root}
    out, config = tmp_path / "run", ["--config-file", "quickstart/deeplabv3plus_r18_shapes.yaml"]
    train = [*config, *flags]
    run("train_net.py", *train, *OPTIONS, "OUTPUT_DIR", out, "SOLVER.MAX_ITER", 12, **call)
    run("train_net.py", *train, "--resume", *OPTIONS, "OUTPUT_DIR", out, "SOLVER.MAX_ITER", 16,
        **call)  # fmt: skip

    # The best checkpoint is that of the lowest error, which the evaluator calls better.
    lines = [json.loads(line) for line in (out / "metrics.json").read_text().splitlines()]
    errors = [line["stripes/area_error"] for line in lines if "stripes/area_error" in line]
    state = torch.load(out / "model_final.pth", weights_only=True)["trainer"]["hooks"]
    assert state["BestCheckpoint"]["metric"] == "stripes/area_error"
    assert (out / "inference/pictures.png").stat().st_size > 1000
    page = (out / "report.html").read_text()
    assert "area_error" in page

    saved = (out / "config.yaml").read_text()
    names = [str(file) for file in files] if how == "import" else [
        f"outside_parts.{part}" for part in sorted(PARTS)]  # fmt: skip
    assert all(f"- {name}" in saved for name in names), saved[:600]
    again = ["--config-file", out / "config.yaml", *flags]
    weights = out / "model_final.pth"
    run("train_net.py", *again, "--eval-only", "MODEL.WEIGHTS", out / "model_best.pth",
        "OUTPUT_DIR", tmp_path / "eval", **call)  # fmt: skip
    results = json.loads((tmp_path / "eval/inference/stripes_results.json").read_text())
    best = results["results"]["stripes"]["area_error"]  # metrics.json forgets what came after
    assert best <= min(errors) + 1e-6 < max(errors)  # the checkpoint that was resumed

    image = root / "stripes/val/0.png"
    run("predict.py", *again, "--weights", weights, "--input", image, "--output",
        tmp_path / "predicted", "--save", "mask,overlay", **call)  # fmt: skip
    mask = np.asarray(Image.open(tmp_path / "predicted/mask/0.png"))
    assert mask.shape == (64, 80)
    assert set(np.unique(mask)) <= {0, 1}
    run("export_model.py", *again, "--weights", weights, "--format", "torchscript", "--output",
        tmp_path / "exported", **call)  # fmt: skip
    assert (tmp_path / "exported/model.pt").is_file()
    run("report.py", out, **call)
    if how == "import":  # without the flag it is asked for by name, and nothing is imported
        for read in (Predictor.from_config, load_for_export, evaluation_of):
            with pytest.raises(ConfigError, match=f"give --import {files[0]}"):
                read(str(out / "config.yaml"), str(weights))


def evaluation_of(config: str, weights: str) -> None:
    setup(argument_parser().parse_args(["--config-file", config, "--eval-only"]))
