"""What a run folder holds, read leniently: a missing file leaves its part of the report out."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ...tasks import SAVED_DETECTIONS

logger = logging.getLogger(__name__)

EXAMPLES = "examples/examples.json"
#: Ends the name of a task's explanations, beside ``<task>_results.json``.
EXPLANATIONS = "_explanations.json"


@dataclass(frozen=True)
class Run:
    """The files of a run folder.

    Attributes:
        name: of the folder.
        folder: where it is.
        record: ``run.json``.
        config: ``config.yaml`` as text.
        metrics: the rows of ``metrics.json``, each with ``iteration``.
        system: ``system.json``: ``rows`` of the parts' parameters, multiply-adds and bytes.
        results: (folder below ``inference``, task) -> ``<task>_results.json``.
        explanations: as ``results``, of ``<task>_explanations.json``; ``picture`` of its entries
            are paths.
        examples: entries of ``examples.json``, whose ``pictures`` are paths.
        problems: files that could not be read, with the reason.
    """

    name: str
    folder: Path
    record: dict[str, Any] = field(default_factory=dict)
    config: str = ""
    metrics: list[dict[str, Any]] = field(default_factory=list)
    system: dict[str, Any] = field(default_factory=dict)
    results: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    explanations: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, str]:
        """``config.yaml`` as dotted keys and the text of their values."""
        found: dict[str, str] = {}
        try:
            _flatten(yaml.safe_load(self.config) or {}, "", found)
        except yaml.YAMLError:
            return {}  # shown as text all the same
        return found


def read_run(folder: str | Path) -> Run:
    """Read a run folder.

    Raises:
        FileNotFoundError: there is no such folder, or nothing of a run in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    problems: list[str] = []
    inference = folder / "inference"
    results, explanations = {}, {}
    for file in sorted(inference.rglob("*_results.json")):
        if file.name in SAVED_DETECTIONS:
            continue
        content = _json(file, dict, problems)
        if content:
            where = file.parent.relative_to(inference).as_posix()
            task = file.name.removesuffix("_results.json")
            key = "" if where == "." else where, task
            results[key] = content
            if explained := _explanations(file, task, problems):
                explanations[key] = explained
    config = folder / "config.yaml"
    run = Run(
        name=folder.resolve().name,
        folder=folder,
        record=_json(folder / "run.json", dict, problems) or {},
        config=config.read_text(encoding="utf-8", errors="replace") if config.is_file() else "",
        metrics=_json_lines(folder / "metrics.json", problems),
        system=_json(folder / "system.json", dict, problems) or {},
        results=results,
        explanations=explanations,
        examples=_examples(inference / EXAMPLES, problems),
        # The page may go to others: files are named from the run's folder on.
        problems=[problem.replace(str(folder), folder.resolve().name, 1) for problem in problems],
    )
    if not (run.record or run.config or run.metrics or run.results):
        raise FileNotFoundError(
            f"{folder} holds no run: neither config.yaml, metrics.json, run.json nor inference/"
        )
    return run


def _json(file: Path, kind: type, problems: list[str]) -> Any:
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are both
        problems.append(f"{file}: {error}")
        return None
    if not isinstance(content, kind):
        problems.append(f"{file} holds a {type(content).__name__}, not a {kind.__name__}")
        return None
    return content


def _json_lines(file: Path, problems: list[str]) -> list[dict[str, Any]]:
    """The rows; one that a killed process left half-written is skipped and reported."""
    if not file.is_file():
        return []
    rows = []
    for number, line in enumerate(file.read_text("utf-8", "replace").splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            problems.append(f"{file}, line {number}: {error}")
            continue
        if isinstance(row, dict) and "iteration" in row:
            rows.append(row)
    return rows


def digest_of(results: Path) -> str:
    """What tells the results of one evaluation from those of another."""
    return hashlib.sha256(results.read_bytes()).hexdigest()


def _explanations(results: Path, task: str, problems: list[str]) -> dict[str, Any] | None:
    file = results.with_name(task + EXPLANATIONS)
    content = _json(file, dict, problems)
    if content and content.get("results") != digest_of(results):
        problems.append(
            f"{file} explains an earlier evaluation and is left out: report --explain makes it anew"
        )
        return None
    for entries in (content or {}).values():
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and "picture" in entry:
                path = file.parent / "explanations" / Path(entry["picture"]).name
                entry["picture"] = path if path.is_file() else None
    return content


def _examples(file: Path, problems: list[str]) -> list[dict[str, Any]]:
    entries = _json(file, list, problems) or []
    found = []
    for entry in entries:
        pictures = {kind: file.parent / Path(name).name for kind, name in entry["pictures"].items()}
        if all(path.is_file() for path in pictures.values()):
            found.append({**entry, "pictures": pictures})
    return found


def _flatten(node: Any, prefix: str, found: dict[str, str]) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            _flatten(value, f"{prefix}.{key}" if prefix else str(key), found)
    else:
        found[prefix] = str(node)
