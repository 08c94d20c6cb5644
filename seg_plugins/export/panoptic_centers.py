"""Panoptic segments from the outputs of an exported bottom-up system.

This file lies beside the exported one as ``panoptic.py``. It needs NumPy and nothing else.
"""

import numpy as np


def panoptic(outputs, settings):
    """Group the pixels of things by the centre that each points to; stuff is what is left.

    Args:
        outputs: of the exported file, of one image: ``logits`` (K, H, W), ``heatmaps`` (1, H, W)
            and ``offsets`` (2, H, W), down and across, in pixels.
        settings: ``json.loads(metadata["panoptic"])``.

    Returns:
        ids: (H, W) int32; 0 is void.
        segments: a dict for each id from 1 on. Things have ``id``, ``isthing``, ``category_id``,
            ``score`` and ``instance_id``; stuff ``id``, ``isthing``, ``category_id`` and ``area``
            in pixels.
    """
    logits, heat = outputs["logits"], outputs["heatmaps"][0]
    labels, ids = logits.argmax(axis=0), np.zeros(heat.shape, np.int32)
    segments: list[dict] = []
    chances = np.exp(logits - logits.max(axis=0))
    chances /= chances.sum(axis=0)
    # Centres: maxima of a window around them, above the threshold.
    values = np.where(heat > settings["threshold"], heat, -1)
    side = settings["nms_kernel"]
    padded = np.pad(values, side // 2, constant_values=-np.inf)
    for axis in (0, 1):
        padded = np.lib.stride_tricks.sliding_window_view(padded, side, axis=axis).max(axis=-1)
    values = np.where(values == padded, values, -1).ravel()
    least = np.sort(values)[-min(settings["top_k"], values.size)]
    centers = np.argwhere(values.reshape(heat.shape) > max(least, 0))
    # The centre nearest to where each pixel of a thing points.
    pixels = np.argwhere(np.isin(labels, settings["thing_ids"]))
    rows, columns = pixels.T
    targets = pixels + outputs["offsets"][:, rows, columns].T
    groups, nearest = np.zeros(len(pixels), int), np.full(len(pixels), np.inf, np.float32)
    for number, center in enumerate(centers.astype(np.float32), start=1):
        distance = ((targets.astype(np.float32) - center) ** 2).sum(axis=1)
        groups[distance < nearest] = number
        nearest = np.minimum(nearest, distance)
    for number, (y, x) in enumerate(centers, start=1):
        of_group = groups == number
        if not of_group.any():
            continue
        y_in, x_in = rows[of_group], columns[of_group]
        label = int(np.bincount(labels[y_in, x_in], minlength=len(logits)).argmax())
        score = float(np.clip(heat[y, x], 0, 1) * chances[label, y_in, x_in].mean())
        ids[y_in, x_in] = len(segments) + 1
        segments.append({"id": len(segments) + 1, "isthing": True, "category_id": label,
                         "score": score, "instance_id": len(segments)})  # fmt: skip
    for label in sorted(set(range(len(logits))) - set(settings["thing_ids"])):
        is_stuff = (labels == label) & (ids == 0)
        area = int(is_stuff.sum())
        if area >= max(settings["stuff_area"], 1):
            ids[is_stuff] = len(segments) + 1
            segments.append({"id": len(segments) + 1, "isthing": False, "category_id": label,
                             "area": area})  # fmt: skip
    return ids, segments
