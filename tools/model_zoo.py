#!/usr/bin/env python
"""Write MODEL_ZOO.md rows from run folders: every number comes from the files of the run.

python tools/model_zoo.py output/camvid_deeplabv3plus_r18 output/other_run > rows.md
python tools/model_zoo.py --verify output/camvid_deeplabv3plus_r18

python tools/model_zoo.py --differences output/run_a output/run_b

python tools/model_zoo.py --weights nuclei.safetensors output/run

--verify evaluates the weights again and compares: exit status 1 where a value differs.
--differences writes a line for each figure of each pair of runs: which is better, by how much, and
in how many resamples of the test images (docs/evaluation.md). Folders seed_1, seed_2, ... of one
folder, or runs that differ in SEED alone, count as one by their mean.
--weights writes the best weights in float16, as seg_plugins.zoo's table names them.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from seg_plugins.evaluation import EvaluationError
from seg_plugins.evaluation.bootstrap import compare_runs
from seg_plugins.io.files import write_atomically
from seg_plugins.io.weights import read_weights, safetensors_bytes
from seg_plugins.io.weights.layout import take_ema
from seg_plugins.plugins import add_import_argument
from seg_plugins.tasks import TASKS
from seg_plugins.visualization.report import by_seed, read_run

COLUMNS = (
    "system", "dataset", "metric", "value", "config", "hardware", "iterations", "time",
    "parameters", "sha256",
)  # fmt: skip
KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*")  # of the configuration
BEST = ("model_best.pth", "model_final.pth")
TRAIN_NET = Path(__file__).with_name("train_net.py")


def rows(run: Path) -> list[list[str]]:
    """The rows of one run: one metric each."""
    record = json.loads((run / "run.json").read_text())
    digest = hashlib.sha256((run / "model_final.pth").read_bytes()).hexdigest()
    found = values(run)
    common = [
        f"{_config(record['command'])} SEED {record['seed']}",  # what repeats the run
        record["hardware"],
        f"{record['iterations']} x {record['batch']}",
        f"{record['seconds'] / 60:.1f} min",
        f"{record['parameters'] / 1e6:.2f} M",
        digest[:12],
    ]
    dataset = ", ".join(record["datasets"]["test"])
    return [
        [
            record["system"],
            dataset,
            name,
            f"{value:{'.4f' if name[:3] == 'em/' else '.2f'}}",
            *common,
        ]
        for name, value in found.items()
    ]


def values(run: Path) -> dict[str, float]:
    """``group/name`` -> value after the last iteration, for the figures that get a row.

    Those of a group that no task of the package has, from an evaluator of one's own, all do.
    """
    found = {}
    for line in (run / "metrics.json").read_text().splitlines():
        found.update(json.loads(line))  # the last evaluation wins
    names = [name for task in reversed(TASKS) for name in task.figures]
    own = _measured(run).keys() - {group for task in TASKS for group in task.groups}
    names += [name for name in found if name.partition("/")[0] in own and "-" not in name]
    return {name: found[name] for name in names if name in found}


def _measured(run: Path) -> dict[str, dict[str, float]]:
    """``{group: {name: value}}`` of the last evaluation."""
    groups: dict[str, dict[str, float]] = {}
    for file in Path(run, "inference").rglob("*_results.json"):
        groups |= json.loads(file.read_text())["results"]
    return groups


def verify(run: Path, imports: list[str]) -> bool:
    """Evaluate ``model_final.pth`` again with the run's configuration; print old and new values."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, str(TRAIN_NET), "--config-file", str(run / "config.yaml"),
            *(word for name in imports for word in ("--import", name)),
            "--eval-only", "MODEL.WEIGHTS", str(run / "model_final.pth"), "OUTPUT_DIR", folder,
        ]  # fmt: skip
        if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
            sys.exit(f"error: evaluating {run} failed; the reason stands above")
        groups = _measured(Path(folder))
        again = {
            f"{group}/{name}": value for group in groups for name, value in groups[group].items()
        }
    same = True
    for name, value in values(run).items():
        close = abs(again[name] - value) <= 1e-3 * max(1.0, abs(value))
        same &= close
        print(f"{run}  {name}  {value:.4f}  {again[name]:.4f}  {'same' if close else 'DIFFERENT'}")
    return same


def differences(runs: list[Path]) -> list[str]:
    """A line for each figure with a row in the table, of each pair of runs.

    Raises:
        EvaluationError: the runs cannot be compared.
    """
    groups = by_seed([read_run(run) for run in runs])
    folders = {name: [run.folder for run in group] for name, group in groups.items()}
    found = compare_runs(folders)
    problems = [*found.problems]
    if len(folders) < 2:
        problems.append("--differences takes two runs or more that differ in more than their seed")
    elif not problems and not found.differences:
        problems.append(
            f"{', '.join(map(str, runs))}: nothing that can be compared; evaluate them again, "
            "which keeps statistics of each image"
        )
    if problems:
        raise EvaluationError("\n".join(problems))
    shown = {name for task in TASKS for name in task.figures}
    return [f"- {line}" for line in found.differences if line.metric in shown]


def write_weights(run: Path, target: Path) -> str:
    """Write a run's best weights as safetensors, in float16 but for vectors; its SHA-256.

    Vectors (biases, norms and their statistics) are few, and may lie outside float16's range.
    """
    best = next(run / name for name in BEST if (run / name).is_file())
    weights = read_weights(best)
    take_ema(weights)
    state = {
        name: tensor.half() if tensor.is_floating_point() and tensor.dim() > 1 else tensor
        for name, tensor in weights.tensors.items()
    }
    content = safetensors_bytes(state, {})
    write_atomically(target, lambda file: file.write(content))
    return hashlib.sha256(content).hexdigest()


def _config(command: str) -> str:
    """The configuration and what the command line changed in it, but for folder and seed."""
    words = shlex.split(command)
    given = dict(itertools.pairwise(words))
    path = given.get("--config-file", "")
    path = path[path.index("configs/") :] if "configs/" in path else path
    if "--data" in given:
        path = f"{path} --data {Path(given['--data']).name}".strip()
    first = next((i for i, word in enumerate(words) if KEY.fullmatch(word)), len(words))
    changed = [path]
    for key, value in zip(words[first::2], words[first + 1 :: 2], strict=True):
        if key not in ("OUTPUT_DIR", "SEED"):
            # Whose machine has which folders says nothing to others.
            changed += [key, Path(value).name if value.startswith("/") else shlex.quote(value)]
    return " ".join(changed)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output folder of a run")
    parser.add_argument("--verify", action="store_true", help="evaluate the weights again")
    parser.add_argument("--differences", action="store_true", help="compare the runs in pairs")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="of one run, written here")
    add_import_argument(parser)
    args = parser.parse_args()
    if args.weights:
        if len(args.runs) != 1:
            parser.error("--weights takes one run")
        print(f"{args.weights}: SHA-256 {write_weights(args.runs[0], args.weights)}")
        return 0
    if args.differences:
        try:
            print("\n".join(differences(args.runs)))
        except (FileNotFoundError, EvaluationError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        return 0
    if args.verify:
        return 1 if [run for run in args.runs if not verify(run, args.imports)] else 0
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS))
    for run in args.runs:
        try:
            for row in rows(run):
                print("| " + " | ".join(row) + " |")
        except FileNotFoundError as error:
            print(f"error: {run} is not a finished run: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
