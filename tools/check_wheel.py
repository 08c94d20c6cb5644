#!/usr/bin/env python
"""Install one wheel beside several versions of PyTorch and run the operator tests there.

    make wheel
    python tools/check_wheel.py dist/seg_plugins-*.whl --torch 2.11.0 2.13.0 2.14.1
    python tools/check_wheel.py dist/seg_plugins-*.whl --symbols 2.12.1 2.15.0

Each version gets a fresh virtual environment (gigabytes, minutes; removed afterwards) with torch,
the torchvision that belongs to it, the wheel and Detectron2 by `seg-plugins install-detectron2`.
The tests run from a copy that lacks the package, so that nothing but the wheel is imported. Prints
a line per version; exits 1 where a test fails or none ran.

``--symbols`` only looks up what the wheel's libraries want of PyTorch among what that version's
libraries define. Nothing runs; the wheel of PyTorch alone is downloaded (half a gigabyte or more).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# torchvision's minor version grows with torch's: 2.11 belongs to 0.26.
VISION_OFFSET = 15


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--torch", nargs="+", metavar="VERSION",
                        help="default, without --symbols: 2.11.0 2.13.0 2.14.1")  # fmt: skip
    parser.add_argument("--symbols", nargs="+", default=[], metavar="VERSION")
    parser.add_argument("--tests", nargs="+", default=["tests/ops"], help="default: the operators'")
    args = parser.parse_args()
    wheel = args.wheel.resolve(strict=True)
    versions = args.torch or ([] if args.symbols else ["2.11.0", "2.13.0", "2.14.1"])
    failed = [version for version in versions if not passes(wheel, version, args.tests)]
    failed += [version for version in args.symbols if not has_symbols(wheel, version)]
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


def has_symbols(wheel: Path, version: str) -> bool:
    """Print which symbols of PyTorch the wheel's libraries miss in a version of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        run([*pip, "--no-deps", f"torch==={version}"], folder)
        (torch,) = folder.glob("torch-*.whl")
        defined = symbols(torch, r"torch/lib/lib(torch_cpu|torch_cuda|c10|c10_cuda)\.so", "defined")
        wanted = {s for s in symbols(wheel, r".*\.so", "undefined") if is_of_pytorch(s)}
    if not wanted:
        raise SystemExit(f"{wheel.name} holds no library that uses PyTorch")
    missing = sorted(wanted - defined)
    print(
        f"{torch.name}: {len(wanted) - len(missing)} of {len(wanted)} symbols", *missing, flush=True
    )
    return not missing


def is_of_pytorch(symbol: str) -> bool:
    """Whether PyTorch's libraries have to define it: its C interface, or C++ in its namespaces."""
    spaces = ("3c10", "2at", "5torch")  # mangled
    mangled = symbol.startswith("_Z") and any(space in symbol for space in spaces)
    return mangled or symbol.startswith(("aoti_torch_", "torch_", "c10_"))


def symbols(archive: Path, members: str, kind: str) -> set[str]:
    """The dynamic symbols of libraries in a wheel.

    Args:
        archive: the wheel.
        members: a pattern of the libraries' names in it.
        kind: ``defined`` or ``undefined``.
    """
    found: set[str] = set()
    with zipfile.ZipFile(archive) as files, tempfile.TemporaryDirectory() as folder:
        for name in filter(re.compile(members).fullmatch, files.namelist()):
            command = ["nm", "--dynamic", f"--{kind}-only", files.extract(name, folder)]
            lines = run(command, Path(folder)).stdout.splitlines()
            found |= {line.split()[-1].partition("@")[0] for line in lines}
    return found


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command that has to succeed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done


if __name__ == "__main__":
    sys.exit(main())
