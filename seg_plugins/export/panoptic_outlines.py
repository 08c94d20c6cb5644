"""Panoptic segments from the outputs of an exported system whose masks are outlines (PolarMask).

This file lies beside the exported one as ``panoptic.py``. It needs NumPy and nothing else.
"""

import numpy as np


def panoptic(outputs, settings):
    """Merge instances and semantic labels: instances take pixels by falling score, then stuff.

    Args:
        outputs: of the exported file, by name: ``logits`` (K, H, W); ``scores`` (n,), ``classes``
            (n,), and ``outlines`` (n, R, 2), x and y of a polygon's corners in pixels.
        settings: ``json.loads(metadata["panoptic"])``.

    Returns:
        ids: (H, W) int32; 0 is void.
        segments: a dict for each id from 1 on. Things have ``id``, ``isthing``, ``category_id``,
            ``score`` and ``instance_id``, their place in the outputs; stuff ``id``, ``isthing``,
            ``category_id`` and ``area`` in pixels.
    """
    labels = outputs["logits"].argmax(axis=0)
    height, width = labels.shape
    ids = np.zeros((height, width), np.int32)
    segments: list[dict] = []

    def filled(corners):
        # As COCO's API fills: it draws the sides on a grid of fifths of a pixel, and inside are the
        # pixels above which an odd number of sides cross the middle of their column.
        crossings = np.zeros((height + 1, width), np.uint8)  # odd stays odd in 8 bits
        corners = np.trunc(corners.astype(float) * 5 + 0.5)
        for ends in np.stack([corners, np.roll(corners, -1, axis=0)], axis=1):
            extent = np.ptp(ends, axis=0)
            steps, axis = int(extent.max()), int(extent.argmax())
            start, end = sorted(ends, key=lambda corner: corner[axis])
            drawn = start + (end - start) / max(steps, 1) * np.arange(steps + 1)[:, None]
            drawn = np.trunc(drawn + 0.5).astype(int)
            x, y = np.minimum(drawn[1:], drawn[:-1])[drawn[1:, 0] != drawn[:-1, 0]].T
            middle = x % 5 == 2
            np.add.at(crossings, ((y[middle] + 2) // 5, x[middle] // 5), 1)
        return crossings.cumsum(axis=0, dtype=np.uint8)[:-1] % 2 == 1

    for place in np.argsort(-outputs["scores"], kind="stable"):
        score = float(outputs["scores"][place])
        if score < settings["score_threshold"]:
            break
        inside = filled(outputs["outlines"][place])
        free, area = inside & (ids == 0), inside.sum()
        if not free.any() or (area - free.sum()) / area > settings["overlap_threshold"]:
            continue
        ids[free] = len(segments) + 1
        category = settings["categories"][int(outputs["classes"][place])]
        segments.append({"id": len(segments) + 1, "isthing": True, "category_id": category,
                         "score": score, "instance_id": int(place)})  # fmt: skip
    areas = np.bincount(labels[ids == 0], minlength=len(outputs["logits"]))
    is_free = ids == 0
    for label in settings["stuff"]:
        area = int(areas[label])
        if area >= max(settings["stuff_area_threshold"], 1):
            ids[is_free & (labels == label)] = len(segments) + 1
            segments.append({"id": len(segments) + 1, "isthing": False, "category_id": label,
                             "area": area})  # fmt: skip
    return ids, segments
