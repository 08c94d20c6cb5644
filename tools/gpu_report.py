#!/usr/bin/env python
"""Print what gpu_check.py wrote as Markdown: machine, phases, and the tables that they printed.

python tools/gpu_report.py FILE
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

SUMMARY = re.compile(
    r"\d+ (?:passed|failed|skipped).* in [\d.]+s(?: \(.*\))?|RoIAlign cases: .*|.*SUMMARY: .*"
    r"|.*(?P<result>Result: .*)|Fatal Python error: .*|One pooling: .*"
)


def report(lines: list[dict[str, Any]]) -> str:
    """The text for the results of one run.

    Args:
        lines: the objects of the file, in order.
    """
    machine: dict[str, str] = {}
    status = [["check", "result", "seconds", "summary"], ["---"] * 4]
    tables: list[str] = []
    for line in lines:
        if line["phase"] == "machine":
            machine = {key: value for key, value in line.items() if key != "phase"}
            continue
        output = line["output"].splitlines()
        found = filter(None, (SUMMARY.fullmatch(text.strip("= ")) for text in output))
        summary = "; ".join(match["result"] or match[0] for match in found)
        seconds = str(line.get("seconds", "-"))
        status.append([line["phase"], line["status"], seconds, summary or "-"])
        rows = [text for text in output if text.startswith("|")]
        if rows:
            titles = [text for text in output if text.endswith("ms") or "milliseconds" in text]
            tables.append("\n".join([f"## {line['phase']}", "", *titles, "", *rows]))
    head = ", ".join(f"{key} {value}" for key, value in machine.items())
    phases = "\n".join(f"| {' | '.join(row)} |" for row in status)
    return "\n\n".join([head, phases, *tables]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="what gpu_check.py --json wrote")
    args = parser.parse_args()
    print(report([json.loads(line) for line in args.file.read_text().splitlines()]), end="")


if __name__ == "__main__":
    main()
