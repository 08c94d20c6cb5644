#!/usr/bin/env python
"""Install one wheel beside several versions of PyTorch and run the operator tests there.

    make wheel
    python tools/check_wheel.py dist/seg_plugins-*.whl --torch 2.11.0 2.13.0 2.14.1

Each version gets a fresh virtual environment (gigabytes, minutes; removed afterwards) with torch,
the torchvision that belongs to it, the wheel and Detectron2 by `seg-plugins install-detectron2`.
The tests run from a copy that lacks the package, so that nothing but the wheel is imported. Prints
a line per version; exits 1 where a test fails or none ran.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# torchvision's minor version grows with torch's: 2.11 belongs to 0.26.
VISION_OFFSET = 15


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--torch", nargs="+", default=["2.11.0", "2.13.0", "2.14.1"])
    parser.add_argument("--tests", nargs="+", default=["tests/ops"], help="default: the operators'")
    args = parser.parse_args()
    wheel = args.wheel.resolve(strict=True)
    failed = [version for version in args.torch if not passes(wheel, version, args.tests)]
    if failed:
        print(f"failed with torch {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


def passes(wheel: Path, version: str, tests: list[str]) -> bool:
    """Run the tests in an environment of their own and print how it went."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "venv", with_pip=True)
        python = str(folder / "venv" / "bin" / "python")
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        _, minor, patch = version.split(".")
        vision = f"torchvision==0.{int(minor) + VISION_OFFSET}.{patch}"
        run([*pip, f"torch==={version}", vision, "setuptools<82", "wheel", "pip<26.3"], folder)
        run([*pip, str(wheel), "pytest", "hypothesis"], folder)
        run([str(folder / "venv" / "bin" / "seg-plugins"), "install-detectron2"], folder)
        for part in ("tests", "tools", "seg_plugins/ops/csrc"):
            shutil.copytree(ROOT / part, folder / part)
        shutil.copy(ROOT / "pyproject.toml", folder)
        print(run([python, "-m", "seg_plugins.ops"], folder).stdout, end="")
        done = subprocess.run(
            [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
            cwd=folder, capture_output=True, text=True,
        )  # fmt: skip
        summary = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr
        print(f"torch {version}, {vision}: {summary}", flush=True)
        if done.returncode:
            print(done.stdout[-5000:], done.stderr[-2000:], sep="\n", file=sys.stderr)
        return done.returncode == 0 and re.search(r"\b\d+ passed", summary) is not None


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command that has to succeed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done


if __name__ == "__main__":
    sys.exit(main())
