#!/usr/bin/env python
"""Build, test and measure everything that needs a CUDA GPU, in six minutes at most.

bash tools/gpu_check.sh [--wheels DIR] [--json FILE] [PHASE ...]
python tools/gpu_check.py --collect DIR     # on a machine with a package index: the wheels
bash tools/gpu_check.sh --rehearse          # without a GPU: the CPU form of each phase

Runs from a checkout; nothing is installed. Of packages it takes what is there and, with --wheels,
what a folder holds for Python 3.12: the machine itself needs torch, torchvision, numpy, a C++
compiler and nvcc. --collect gathers those that a machine with PyTorch alone usually lacks.

Each phase is a process with a limit of its own; its result is written as a line of FILE when it
ends, so that a run that is cut off has not run in vain. `python tools/gpu_report.py FILE` prints
them as the tables of the documents. The phases, in order: PHASES.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = sys.executable
PYTEST = (PYTHON, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider")
OPERATORS = ("tests/ops", "tests/modeling/test_roi_pooler.py")
WHEELS = (
    *("pycocotools", "yacs", "omegaconf==2.3.1", "hydra-core", "cityscapesScripts", "termcolor"),
    *("pyquaternion", "coloredlogs", "humanfriendly", "appdirs", "segmentation-models-pytorch"),
)
SYSTEMS = ("Mask R-CNN R50-FPN", "Mask R-CNN R50-C4", "Panoptic FPN R50", "DeepLabv3+ R50",
           "U-Net R50")  # fmt: skip
IN_FLOAT32 = ("--settings", "fp32")
FROM_SOURCE = ("fvcore", "iopath", "antlr4-python3-runtime==4.9.3")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


@dataclass(frozen=True)
class Phase:
    """A command with a limit in seconds, and its form without a GPU; None leaves the phase out."""

    command: tuple[str, ...]
    seconds: int
    rehearsal: tuple[str, ...] | None = None


def tool(name: str, *arguments: str) -> tuple[str, ...]:
    return (PYTHON, f"tools/{name}.py", *arguments)


def sanitizer(kind: str) -> Phase:
    command = ("compute-sanitizer", "--tool", kind, "--error-exitcode", "9")
    return Phase((*command, *tool("roi_align_cases")), 45)


PHASES: dict[str, Phase] = {
    "build": Phase((PYTHON, "setup.py", "build_ext", "--inplace"), 80, (PYTHON, "setup.py", "-V")),
    "operators": Phase(
        (*PYTEST, "-m", "not slow", "-k", "cuda", *OPERATORS),
        55,
        (*PYTEST, "-m", "not slow", "-k", "by_hand", *OPERATORS),
    ),
    "systems": Phase((*PYTEST, "-m", "not slow", "tests/contracts", "-k", "gpu or device"), 45),
    "memcheck": sanitizer("memcheck"),
    "racecheck": sanitizer("racecheck"),
    "roi_align": Phase(
        tool("benchmark_roi_align", "--device", "cuda"),
        30,
        tool("benchmark_roi_align", "--device", "cpu", "--repeats", "1"),
    ),
    "training_steps": Phase(
        tool("benchmark_systems", "--device", "cuda", "--size", "512", *SYSTEMS),
        60,
        tool("benchmark_systems", SYSTEMS[0], "--repeats", "1", "--size", "64", *IN_FLOAT32),
    ),
}


def machine() -> dict[str, str]:
    """What the figures were measured with."""
    import torch
    import torchvision

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True, capture_output=True
    ).stdout.strip()
    found = {"python": platform.python_version(), "torch": torch.__version__,
             "torchvision": torchvision.__version__, "commit": commit}  # fmt: skip
    if torch.cuda.is_available():
        driver = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            text=True, capture_output=True,
        ).stdout.strip()  # fmt: skip
        found |= {"gpu": torch.cuda.get_device_name(), "driver": driver,
                  "cuda": str(torch.version.cuda)}  # fmt: skip
    return found


def run(name: str, command: tuple[str, ...], seconds: int) -> dict[str, object]:
    """Run a phase; its output is shown and kept."""
    print(f"== {name}: {' '.join(command)}", flush=True)
    start = time.monotonic()
    if shutil.which(command[0]) is None:
        return {"phase": name, "status": f"not possible: {command[0]} is not here", "output": ""}
    process = subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=seconds)
        status = "passed" if process.returncode == 0 else f"failed ({process.returncode})"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        output, _ = process.communicate()
        status = f"cut off after {seconds} s"
    lines = output.splitlines()
    print("\n".join(lines[-40:]))
    took = round(time.monotonic() - start, 1)
    print(f"== {name}: {status}, {took} s", flush=True)
    return {"phase": name, "status": status, "seconds": took, "output": "\n".join(lines[-400:])}


def add_path(folder: str) -> None:
    """Have the phases' processes look for packages there, too."""
    paths = filter(None, [folder, os.environ.get("PYTHONPATH")])
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)


def collect(folder: Path) -> None:
    """Put the wheels for a machine with Python 3.12 into a folder."""
    pip = [PYTHON, "-m", "pip"]
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    subprocess.run(
        [*pip, "download", "-q", "--no-deps", "--only-binary=:all:", "--python-version", "3.12",
         *platforms, "-d", str(folder), *WHEELS], check=True,
    )  # fmt: skip
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", str(folder), *FROM_SOURCE], check=True)
    subprocess.run([*tool("install_detectron2"), "--wheel", str(folder)], cwd=ROOT, check=True)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    print(f"{len(list(folder.iterdir()))} wheels, {size:.1f} MiB: {folder}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.replace("PHASES", ", ".join(PHASES)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("phases", nargs="*", metavar="PHASE", help="default: all")
    add("--json", type=Path, default=Path("gpu_check.jsonl"), help="default: gpu_check.jsonl")
    add("--wheels", type=Path, help="folder of wheels that this machine lacks")
    add("--collect", type=Path, metavar="DIR", help="gather those wheels, and end")
    add("--rehearse", action="store_true", help="the CPU form of each phase")
    args = parser.parse_args()
    if args.collect:
        collect(args.collect)
        return 0
    if unknown := set(args.phases) - set(PHASES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(PHASES)}")
    with tempfile.TemporaryDirectory(prefix="gpu_check_") as folder:
        if args.wheels:
            wheels = sorted(map(str, args.wheels.glob("*.whl")))
            subprocess.run(
                [PYTHON, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile",
                 "--target", folder, *wheels], check=True,
            )  # fmt: skip
            add_path(folder)
        add_path(str(ROOT))
        return check(args)


def check(args: argparse.Namespace) -> int:
    """Run the phases; 1 where one failed or there is no GPU."""
    found = machine()
    if "gpu" not in found and not args.rehearse:
        print("GPU: not run (PyTorch sees no CUDA GPU on this machine; --rehearse does not ask)")
        return 1
    if "gpu" in found:
        import torch

        os.environ.setdefault(
            "TORCH_CUDA_ARCH_LIST", "{}.{}".format(*torch.cuda.get_device_capability())
        )
        os.environ.setdefault("FORCE_CUDA", "1")
        os.environ.setdefault("MAX_JOBS", str(os.cpu_count()))
    failed = 0
    with args.json.open("a") as file:
        print(json.dumps({"phase": "machine", **found}), file=file, flush=True)
        for name, phase in PHASES.items():
            if args.phases and name not in args.phases:
                continue
            command = phase.rehearsal if args.rehearse else phase.command
            if command is None:
                continue
            result = run(name, command, 120 if args.rehearse else phase.seconds)
            failed += result["status"] != "passed"
            print(json.dumps(result), file=file, flush=True)
    print(f"GPU: {'rehearsed' if args.rehearse else 'done'}, {failed} phases failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
