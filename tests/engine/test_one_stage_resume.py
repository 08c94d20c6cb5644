"""One-stage systems go on after a break as if there had been none."""

from __future__ import annotations

from seg_plugins.engine import Trainer, argument_parser, setup

import pytest
import torch

OPTS = [
    *("MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", "False", "SOLVER.IMS_PER_BATCH", "2"),
    *("SOLVER.MAX_ITER", "4", "SOLVER.STEPS", "()", "SOLVER.CHECKPOINT_PERIOD", "2", "SEED", "7"),
    *("SOLVER.WARMUP_ITERS", "1", "DATALOADER.NUM_WORKERS", "0", "DATASETS.TEST", "()"),
    *("TEST.PICTURES", "0", "TEST.REPORT", "False", "DATASETS.CHECK_SAMPLES", "0"),
]
SYSTEMS = ["solo_v2_r18"]


def trained(config: str, folder, *opts: str, resume: bool = False, until: int | None = None):
    arguments = ["--config-file", f"shapes/{config}.yaml", *(["--resume"] if resume else [])]
    args = argument_parser().parse_args([*arguments, *OPTS, "OUTPUT_DIR", str(folder), *opts])
    trainer = Trainer(setup(args))
    trainer.resume_or_load(resume=resume)
    if until is None:
        trainer.train()
        return trainer
    original = trainer.after_step

    def after_step():
        original()
        if trainer.iter == until:
            raise KeyboardInterrupt

    trainer.after_step = after_step
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize("config", SYSTEMS)
def test_a_resumed_run_is_the_same(config, tmp_path):
    whole = trained(config, tmp_path / "whole")
    trained(config, tmp_path / "broken", until=2)
    second = trained(config, tmp_path / "broken", resume=True)
    assert second.start_iter == 2
    expected = second.model.state_dict()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, expected[name]), name
