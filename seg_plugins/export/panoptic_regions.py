"""Panoptic segments from the outputs of an exported system of regions.

This file lies beside the exported one as ``panoptic.py``. It needs NumPy and nothing else.
"""

import numpy as np


def panoptic(outputs, settings):
    """Merge instances and semantic labels: instances take pixels by falling score, then stuff.

    Args:
        outputs: of the exported file, by name: ``logits`` (K, H, W); ``scores`` (n,), ``classes``
            (n,), ``boxes`` (n, 4) x0, y0, x1, y1 and ``masks``, probabilities: (n, H, W) of the
            image's pixels, or (n, M, M) inside the boxes.
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

    def shares(low, high, first, last, cells):
        # How much each pixel of an axis takes of each cell of a mask: bilinear, 0 outside.
        places = (np.arange(first, last) + 0.5 - low) / (high - low) * cells - 0.5
        return np.maximum(1 - np.abs(places[:, None] - np.arange(cells)), 0)

    for place in np.argsort(-outputs["scores"], kind="stable"):
        score, mask = float(outputs["scores"][place]), outputs["masks"][place]
        if score < settings["score_threshold"]:
            break
        top, left, bottom, right = 0, 0, height, width
        inside = mask > settings["mask_threshold"]
        if settings["masks"] == "boxes":
            x0, y0, x1, y1 = outputs["boxes"][place].astype(float)
            if x1 <= x0 or y1 <= y0:
                continue
            top, left = max(int(np.floor(y0)) - 1, 0), max(int(np.floor(x0)) - 1, 0)
            bottom, right = min(int(np.ceil(y1)) + 1, height), min(int(np.ceil(x1)) + 1, width)
            rows = shares(y0, y1, top, bottom, mask.shape[0])
            columns = shares(x0, x1, left, right, mask.shape[1])
            inside = rows @ mask @ columns.T >= 0.5
        around = ids[top:bottom, left:right]
        free, area = inside & (around == 0), inside.sum()
        if not free.any() or (area - free.sum()) / area > settings["overlap_threshold"]:
            continue
        around[free] = len(segments) + 1
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
