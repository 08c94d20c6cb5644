"""One line of the table of faults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Row:
    """A fault, how often it was made, what came of it, and whether that is what is required."""

    fault: str
    runs: int
    result: str
    passed: bool

    def line(self) -> str:
        """As a row of a Markdown table."""
        return f"| {self.fault} | {self.runs} | {self.result} | {'yes' if self.passed else 'NO'} |"
