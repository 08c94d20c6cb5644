"""Freed memory is kept for the next step: the system hands out no page twice."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc's allocator can be told to"
)

# Two sizes, as of activations that are freed in another order than they were taken in.
FAULTS = """
import resource, sys, torch
from seg_plugins.engine.process import keep_freed_memory
print(keep_freed_memory() if "keep" in sys.argv else False)
def step():
    parts = [torch.ones(size << 18) for size in (3, 40, 5, 64)]
    del parts[1], parts[0]
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments: str, **variables: str) -> tuple[bool, int]:
    """Whether the setting took, and the page faults of ten steps."""
    output = subprocess.run(
        [sys.executable, "-c", FAULTS, *arguments],
        env={**os.environ, **variables}, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    return output[0] == "True", int(output[1])


def test_a_step_takes_no_page_from_the_system() -> None:
    kept, few = faults("keep")
    assert kept
    assert few <= 20
    # In large pages, which some systems use unasked, 112 MiB are 56 faults a step.
    assert faults()[1] > 10 * few + 100


@pytest.mark.parametrize(
    "variables", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=10"}]
)
def test_a_setting_of_the_user_stays(variables: dict[str, str]) -> None:
    assert not faults("keep", **variables)[0]
