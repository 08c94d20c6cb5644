"""What a training says on the screen: a bar on a terminal, few plain lines in a pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import TINY

TRAIN_NET = Path(__file__).resolve().parents[2] / "tools" / "train_net.py"
DETAILS = ("Environment info", "Running with full config", "Contents of args.config_file")


def command(custom: Path, folder: Path) -> list[str]:
    # DATASETS.TEST stays empty for the bar alone.
    opts = [*TINY, "DATASETS.CUSTOM", str(custom), "OUTPUT_DIR", str(folder), "TEST.PICTURES", "0"]
    config = "quickstart/deeplabv3plus_r18_shapes.yaml"
    return [sys.executable, str(TRAIN_NET), "--config-file", config, *opts]


def test_a_pipe_gets_few_plain_lines_and_the_file_all(custom, tmp_path):
    folder = tmp_path / "run"
    run = subprocess.run(command(custom, folder), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    log = (folder / "log.txt").read_text()
    for text in DETAILS:
        assert text in log, text
        assert text not in run.stdout, text
    assert "\x1b" not in run.stdout + run.stderr + log
    assert "total_loss" in run.stdout
    lines = run.stdout.strip().splitlines()
    assert len(lines) < 60
    # The end: score, and the one next command, whose files are there.
    assert "Result: sem_seg/mIoU" in lines[-2]
    assert "on tiny_custom_val" in lines[-2]
    words = lines[-1].split()
    assert words[words.index("--config-file") + 1] == str(folder / "config.yaml")
    assert Path(words[words.index("--weights") + 1]) == folder / "model_best.pth"
    assert (folder / "model_best.pth").is_file()
    assert (folder / "config.yaml").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_bar_instead_of_metrics(custom, tmp_path):
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    run = subprocess.Popen(command(custom, tmp_path / "run"), stdout=theirs, stderr=theirs)
    os.close(theirs)
    text = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        text += part
    os.close(ours)
    assert run.wait() == 0
    shown = text.decode()
    assert "3/3 [" in shown
    assert "loss=" in shown
    assert "total_loss" not in shown
    assert "total_loss" in (tmp_path / "run" / "log.txt").read_text()
    assert "Saving checkpoint" in shown, "other lines stand above the bar"
