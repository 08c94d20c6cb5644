"""A start that failed leaves nothing that stops the next one; a run is never written over."""

from __future__ import annotations

import json

from seg_plugins.config import ConfigError
from seg_plugins.engine import setup
from seg_plugins.engine.checks import run_folder
from seg_plugins.engine.checks.run_folder import check_output_dir, hold

import pytest


@pytest.fixture
def started(tmp_path):
    """What a start leaves that failed in building the model, or in its first batch."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.yaml", "log.txt", "log.txt.rank1", "events.out.tfevents.1.host.2.0"):
        (folder / name).write_text("x")
    (folder / "metrics.json").write_text("")
    (folder / "run.json").write_text('{"iterations": 0}')
    return folder


def test_a_failed_start_counts_as_empty(started, tmp_path):
    check_output_dir(started)
    check_output_dir(tmp_path / "new")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metrics.json", '{"iteration": 0}\n'),
        ("model_0000009.pth", "x"),
        ("nan_dump", None),
        ("run.json", '{"iterations": 3}'),
        ("run.json", "{"),
        ("thesis.txt", "x"),
    ],
)
def test_whatever_a_run_or_a_user_wrote_is_kept(started, name, text):
    path = started / name
    path.mkdir() if text is None else path.write_text(text)
    with pytest.raises(ConfigError, match=r"not empty. Add --resume .* OUTPUT_DIR .*run_2"):
        check_output_dir(started)


def test_a_configuration_of_the_users_alone_is_kept(tmp_path):
    (tmp_path / "config.yaml").write_text("SOLVER: {MAX_ITER: 10}")
    with pytest.raises(ConfigError, match="not empty"):
        check_output_dir(tmp_path)


def test_a_training_that_has_just_begun_keeps_its_folder(started):
    hold(started)
    with pytest.raises(ConfigError, match="not empty"):
        check_output_dir(started)
    run_folder._held.pop().close()  # the process ends
    check_output_dir(started)


def test_the_corrected_command_goes_on_after_weights_that_are_missing(tiny_args, tmp_path):
    from seg_plugins.engine import Trainer, WeightsError

    missing = str(tmp_path / "missing.pth")
    args = tiny_args("MODEL.WEIGHTS", missing)
    with pytest.raises(WeightsError, match=r"missing\.pth"):
        Trainer(setup(args)).resume_or_load(resume=False)
    run_folder._held.pop().close()  # the process ends
    cfg = setup(tiny_args("SOLVER.MAX_ITER", "1"))
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    lines = (tmp_path / "run" / "metrics.json").read_text().splitlines()
    assert json.loads(lines[0])["iteration"] == 0
    run_folder._held.pop().close()
    with pytest.raises(ConfigError, match="not empty"):
        setup(tiny_args())
