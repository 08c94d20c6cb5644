"""Why panoptic segments were not found, on maps drawn by hand."""

from __future__ import annotations

from seg_plugins.evaluation.explain.segments import ImageSegments

import numpy as np
import pytest


def reasons(truth, true_classes, found, found_classes, crowds=()):
    """Segment -> (reason, predictions) from strings of digits, a row each; 0 is void."""
    maps = [np.array([[int(c) for c in row] for row in rows]) for rows in (truth, found)]
    image = ImageSegments(
        maps[0],
        [{"id": i, "category_id": k, "iscrowd": i in crowds} for i, k in true_classes.items()],
        maps[1],
        [{"id": i, "category_id": k} for i, k in found_classes.items()],
    )
    return {segment["id"]: (reason, guesses) for segment, reason, guesses in image.not_found()}


THING, OTHER = 7, 8


@pytest.mark.parametrize(
    ("truth", "found", "found_classes", "expected"),
    [
        # 1 is found: 5 of 6 pixels; nothing is at 2.
        (["111111220"], ["111110000"], {1: THING}, {2: ("missed", [])}),
        # One prediction for two objects: IoU 1/2 with each.
        (["11112222"], ["33333333"], {3: THING}, {1: ("merged", [3]), 2: ("merged", [3])}),
        # 1 is found by the prediction that holds 2 as well.
        (["111111220"], ["333333330"], {3: THING}, {2: ("merged", [3])}),
        # Two halves of 1.
        (["11111122"], ["33344422"], {2: THING, 3: THING, 4: THING}, {1: ("split", [3, 4])}),
        # The second part has less than a tenth of it.
        (
            ["11111111111122"],
            ["33330000000422"],
            {2: THING, 3: THING, 4: THING},
            {1: ("inaccurate outline", [3])},
        ),
        (["11111122"], ["11111133"], {1: THING, 3: OTHER}, {2: ("wrong class", [3])}),
        # Half of it in a prediction of another class: IoU 2 / 4.
        (["1111222200"], ["1111330000"], {1: THING, 3: OTHER}, {2: ("missed", [])}),
    ],
)
def test_each_reason(truth, found, found_classes, expected):
    assert reasons(truth, {1: THING, 2: THING}, found, found_classes) == expected


def test_a_crowd_is_not_looked_for_and_not_merged():
    found = reasons(["11112222"], {1: THING, 2: THING}, ["33333333"], {3: THING}, crowds={2})
    assert found == {1: ("inaccurate outline", [3])}


def test_void_does_not_count_in_the_overlap():
    """As in PQ: the prediction's pixels in void are left out, so IoU is 3 / 4."""
    assert reasons(["11110000"], {1: THING}, ["01111111"], {1: THING}) == {}
