"""What the doctor found, for people and for programs."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["DatasetReport", "Problem"]

_SHOWN_PER_KIND = 5


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: short name, e.g. "missing", "size", "label value".
        message: names the file, the record and the fix where there is one.
        is_error: False for what is only suspicious.
    """

    kind: str
    message: str
    is_error: bool = True


@dataclass
class DatasetReport:
    """The findings for one dataset.

    Attributes:
        name: of the dataset.
        samples: number of samples; `checked` of them were looked at.
        checked: see `samples`.
        problems: everything that was found.
        class_pixels: class name -> pixels, of semantic and panoptic labels.
        ignored_pixels: pixels without a class.
        class_instances: class name -> instances.
        object_sizes: "small", "medium", "large" (COCO's areas) -> instances.
        class_weights: class name -> weight by median frequency.
    """

    name: str
    samples: int = 0
    checked: int = 0
    problems: list[Problem] = field(default_factory=list)
    class_pixels: dict[str, int] = field(default_factory=dict)
    ignored_pixels: int = 0
    class_instances: dict[str, int] = field(default_factory=dict)
    object_sizes: dict[str, int] = field(default_factory=dict)
    class_weights: dict[str, float] = field(default_factory=dict)

    @property
    def errors(self) -> int:
        """The number of errors."""
        return sum(problem.is_error for problem in self.problems)

    def as_dict(self) -> dict[str, Any]:
        """The findings as JSON values."""
        return {**asdict(self), "errors": self.errors}

    def table(self) -> str:
        """The findings as text."""
        warnings = len(self.problems) - self.errors
        lines = [
            f"{self.name}: {self.samples} samples, {self.checked} checked, "
            f"{self.errors} errors, {warnings} warnings"
        ]
        for (kind, is_error), count in Counter(
            (problem.kind, problem.is_error) for problem in self.problems
        ).items():
            lines.append(f"  {'ERROR' if is_error else 'warning'} {kind}: {count}")
            found = [p for p in self.problems if (p.kind, p.is_error) == (kind, is_error)]
            lines += [f"    {problem.message}" for problem in found[:_SHOWN_PER_KIND]]
            if count > _SHOWN_PER_KIND:
                lines.append(f"    ... and {count - _SHOWN_PER_KIND} more")
        total = sum(self.class_pixels.values()) + self.ignored_pixels
        if total:
            lines.append(f"  {'class':<28}{'pixels %':>10}{'weight':>10}")
            for name, pixels in self.class_pixels.items():
                weight = self.class_weights.get(name, 1.0)
                lines.append(f"  {name:<28}{100 * pixels / total:>10.3f}{weight:>10.3f}")
            lines.append(f"  {'(ignored)':<28}{100 * self.ignored_pixels / total:>10.3f}")
        if self.class_instances:
            lines.append(f"  {'class':<28}{'instances':>10}")
            for name, count in self.class_instances.items():
                lines.append(f"  {name:<28}{count:>10}")
            sizes = ", ".join(f"{count} {size}" for size, count in self.object_sizes.items())
            lines.append(f"  sizes: {sizes}")
        return "\n".join(lines)
