"""Random scenes of shapes for the embedded dataset: pixels and labels, no files.

A scene is two kinds of textured ground, some shapes that occlude one another, sometimes a crowd
of small discs and sometimes a smudge whose pixels are to be ignored. Form and pattern tell the
classes apart, colour never: every surface, ground or thing, draws its colour from one shuffled
palette.

Everything is plain NumPy on uniform random numbers, so that one seed gives one scene everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["CLASSES", "IGNORE_LABEL", "NUM_THINGS", "Scene", "Segment", "make_scene"]

# Things first, then the two kinds of ground: the order of COCO panoptic.
CLASSES = ("disc", "square", "triangle", "cross", "ring", "line", "stripes", "speckle")
NUM_THINGS = 6
IGNORE_LABEL = 255
_DISC, _SQUARE, _TRIANGLE, _CROSS, _RING, _LINE, _STRIPES, _SPECKLE = range(len(CLASSES))

_PLAIN = (_CROSS,)

# A later thing may cover at most this share of an earlier one.
_MAX_HIDDEN = 0.5
_MIN_COLOR_DISTANCE = 50.0
# Grey levels between the darkest and the lightest of a surface.
_CONTRAST = (70.0, 90.0)
_FAINT_CONTRAST = (0.0, 15.0)
_SMUDGE = -1  # id of the smudge in the segment map while a scene is built


@dataclass(frozen=True)
class Segment:
    """One visible segment of a scene.

    Attributes:
        class_id: index into `CLASSES`.
        mask: (H, W) bool, the visible pixels.
        is_crowd: several discs annotated as one.
    """

    class_id: int
    mask: np.ndarray
    is_crowd: bool = False


@dataclass(frozen=True)
class Scene:
    """One generated sample.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        labels: (H, W) uint8, indices into `CLASSES` or `IGNORE_LABEL`.
        segments: the visible segments; they are disjoint and cover all that is not ignored.
    """

    image: np.ndarray
    labels: np.ndarray
    segments: tuple[Segment, ...]


def make_scene(rng: np.random.Generator, size: int = 128) -> Scene:
    """Draw one scene of `size` x `size` pixels."""
    ys, xs = np.mgrid[0:size, 0:size] + 0.5
    # Layers from back to front: (class, mask before occlusion, crowd).
    layers = _draw_ground(rng, ys, xs)
    owner = np.zeros((size, size), np.int64)
    for index, (_, mask, _) in enumerate(layers):
        owner[mask] = index

    for _ in range(_integer(rng, 4, 7)):
        class_id = _integer(rng, 0, NUM_THINGS)
        layers += _place(rng, class_id, owner, len(layers), ys, xs)
    surfaces = [(index, index) for index in range(len(layers))]
    parts = owner.copy()
    if rng.random() < 0.1:
        crowd, crowd_parts = _draw_crowd(rng, ys, xs)
        if _room_for(crowd, owner, len(layers)):
            owner[crowd] = len(layers)
            layers.append((_DISC, crowd, True))
            for part in crowd_parts:
                surfaces.append((len(layers) - 1, len(surfaces)))
                parts[part] = len(surfaces) - 1
    smudge = _draw_smudge(rng, ys, xs) if rng.random() < 0.35 else np.zeros_like(owner, bool)

    image = _paint(rng, parts, smudge, layers, surfaces, ys, xs)
    owner[smudge] = _SMUDGE
    labels = np.full((size, size), IGNORE_LABEL, np.uint8)
    segments = []
    for index, (class_id, _, is_crowd) in enumerate(layers):
        visible = owner == index
        if visible.any():
            labels[visible] = class_id
            segments.append(Segment(class_id, visible, is_crowd))
    return Scene(image, labels, tuple(segments))


def _integer(rng: np.random.Generator, low: int, high: int) -> int:
    """An integer in [low, high), from `random` alone: its stream is the most stable of NumPy's."""
    return low + int(rng.random() * (high - low))


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return low + rng.random() * (high - low)


def _draw_ground(rng: np.random.Generator, ys: np.ndarray, xs: np.ndarray) -> list:
    """One or both grounds, parted by a wavy line."""
    size = len(ys)
    kinds = (_STRIPES, _SPECKLE) if rng.random() < 0.5 else (_SPECKLE, _STRIPES)
    if rng.random() < 0.35:
        return [(kinds[0], np.ones((size, size), bool), False)]
    along, across = (xs, ys) if rng.random() < 0.5 else (ys, xs)
    middle = _uniform(rng, 0.3, 0.7) * size
    slope = _uniform(rng, -0.4, 0.4)
    wave = _uniform(rng, 2, 8) * np.sin(along / _uniform(rng, 8, 20) + _uniform(rng, 0, 6.3))
    first = across < middle + slope * (along - size / 2) + wave
    return [(kinds[0], first, False), (kinds[1], ~first, False)]


def _place(
    rng: np.random.Generator,
    class_id: int,
    owner: np.ndarray,
    index: int,
    ys: np.ndarray,
    xs: np.ndarray,
) -> list:
    """Put one thing where it hides none of the others too much; nothing after ten failures."""
    size = len(ys)
    for _ in range(10):
        cy, cx = _uniform(rng, 0.1, 0.9) * size, _uniform(rng, 0.1, 0.9) * size
        mask = _draw_thing(rng, class_id, ys - cy, xs - cx)
        if _room_for(mask, owner, index):
            owner[mask] = index
            return [(class_id, mask, False)]
    return []


def _room_for(mask: np.ndarray, owner: np.ndarray, index: int) -> bool:
    """Whether at least half of every thing stays visible; grounds may vanish but for a rest."""
    if mask.sum() < 100:
        return False
    before = np.bincount(owner.ravel(), minlength=index)
    hidden = np.bincount(owner[mask], minlength=index)
    return bool((hidden <= _MAX_HIDDEN * before).all())


def _draw_thing(
    rng: np.random.Generator, class_id: int, ys: np.ndarray, xs: np.ndarray
) -> np.ndarray:
    """The mask of one thing centred on the origin of the coordinates `ys`, `xs`."""
    angle = _uniform(rng, 0, 2 * np.pi)
    u = np.cos(angle) * xs + np.sin(angle) * ys
    v = np.cos(angle) * ys - np.sin(angle) * xs
    radius = _uniform(rng, 17, 26)
    if class_id == _DISC:
        return xs**2 + ys**2 <= radius**2
    if class_id == _SQUARE:
        return np.maximum(abs(u), abs(v)) <= 0.85 * radius
    if class_id == _TRIANGLE:
        # Distances to the three sides of an equilateral triangle around the origin.
        sides = [v * np.cos(a) + u * np.sin(a) for a in (0, 2 * np.pi / 3, 4 * np.pi / 3)]
        return np.max(sides, axis=0) <= 0.62 * radius
    if class_id == _CROSS:
        narrow, wide = np.minimum(abs(u), abs(v)), np.maximum(abs(u), abs(v))
        return (wide <= 1.1 * radius) & (narrow <= 0.32 * radius)
    if class_id == _RING:
        distance = np.hypot(xs, ys)
        return (distance <= radius) & (distance >= radius - _uniform(rng, 8, 10))
    # A line: thin, long, of any direction.
    return (abs(v) <= _uniform(rng, 3.8, 4.8)) & (abs(u) <= 1.7 * radius)


def _draw_crowd(
    rng: np.random.Generator, ys: np.ndarray, xs: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """A heap of small discs: the union, and the discs from back to front."""
    size = len(ys)
    cy, cx = _uniform(rng, 0.25, 0.75) * size, _uniform(rng, 0.25, 0.75) * size
    parts = []
    for _ in range(_integer(rng, 5, 9)):
        dy, dx, radius = _uniform(rng, -18, 18), _uniform(rng, -18, 18), _uniform(rng, 8, 11)
        parts.append((ys - cy - dy) ** 2 + (xs - cx - dx) ** 2 <= radius**2)
    return np.any(parts, axis=0), parts


def _draw_smudge(rng: np.random.Generator, ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
    """A wobbly blot in front of everything."""
    size = len(ys)
    y, x = ys - _uniform(rng, 0, 1) * size, xs - _uniform(rng, 0, 1) * size
    wobble = np.sin(3 * np.arctan2(y, x) + _uniform(rng, 0, 6.3))
    return np.hypot(y, x) <= _uniform(rng, 7, 12) * (1 + 0.25 * wobble)


def _paint(
    rng: np.random.Generator,
    parts: np.ndarray,
    smudge: np.ndarray,
    layers: list,
    surfaces: list,
    ys: np.ndarray,
    xs: np.ndarray,
) -> np.ndarray:
    """Fill every surface with a colour and the pattern of its class."""
    palette = _draw_palette(rng, len(surfaces) + 1)
    image = np.empty((*parts.shape, 3))
    regions = [parts == part for _, part in surfaces] + [smudge]
    for number, mask in enumerate(regions):
        class_id = layers[surfaces[number][0]][0] if number < len(surfaces) else _CROSS
        pattern = _draw_pattern(rng, class_id, ys, xs)[mask]
        contrast = _uniform(rng, *(_FAINT_CONTRAST if class_id in _PLAIN else _CONTRAST))
        image[mask] = palette[number] + (pattern[:, None] - 0.5) * contrast
    image += 12 * (rng.random(image.shape) - 0.5)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _draw_palette(rng: np.random.Generator, count: int) -> np.ndarray:
    """`count` colours, shuffled, so that none of them has a role.

    Neighbours in the palette keep a distance where that is possible, which would give the later
    colours away (they lie further out); the shuffle makes the colours exchangeable again.
    """
    colors: list[np.ndarray] = []
    for _ in range(count):
        for _ in range(20):
            color = 65 + 125 * rng.random(3)
            if all(np.linalg.norm(color - other) >= _MIN_COLOR_DISTANCE for other in colors):
                break
        colors.append(color)
    order = np.argsort(rng.random(count), kind="stable")
    return np.array(colors)[order]


def _draw_pattern(
    rng: np.random.Generator, class_id: int, ys: np.ndarray, xs: np.ndarray
) -> np.ndarray:
    """The pattern of a class, turned and shifted at random: (H, W) in [0, 1]."""
    if class_id == _SPECKLE:
        return _speckle(rng, ys, xs)
    angle, shift_u, shift_v = _uniform(rng, 0, 2 * np.pi), rng.random(), rng.random()
    u = np.cos(angle) * xs + np.sin(angle) * ys
    v = np.cos(angle) * ys - np.sin(angle) * xs
    if class_id == _SQUARE:  # a chequered pattern
        period = _uniform(rng, 7, 9)
        wave = _wave(u / period + shift_u) * _wave(v / period + shift_v)
    elif class_id == _TRIANGLE:  # chevrons
        period = _uniform(rng, 5, 6)
        bend = abs((v / 10 + shift_v) % 1 - 0.5) * 10
        wave = _wave((u + bend) / period + shift_u)
    elif class_id == _RING:  # finely chequered
        period = _uniform(rng, 4, 5)
        wave = _wave(u / period + shift_u) * _wave(v / period + shift_v)
    elif class_id == _LINE:  # grains
        wave = 2 * rng.random(xs.shape) - 1
    elif class_id == _DISC:  # fine stripes
        wave = _wave(u / _uniform(rng, 4, 5) + shift_u)
    else:  # wide stripes, faint on a cross
        wave = _wave(u / _uniform(rng, 9, 12) + shift_u)
    return 0.5 + 0.5 * wave


def _wave(phase: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * phase)


def _speckle(rng: np.random.Generator, ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
    """Blots without a direction, in [0, 1], with a spread like that of a wave."""
    cells = _uniform(rng, 3.5, 5.0)
    grid = rng.random((len(ys), len(ys)))
    y, x = ys / cells, xs / cells
    y0, x0 = y.astype(np.int64), x.astype(np.int64)
    fy, fx = y - y0, x - x0
    top = grid[y0, x0] * (1 - fx) + grid[y0, x0 + 1] * fx
    bottom = grid[y0 + 1, x0] * (1 - fx) + grid[y0 + 1, x0 + 1] * fx
    noise = top * (1 - fy) + bottom * fy
    return 0.5 + 0.5 * np.sin(np.pi * np.clip(2.2 * (noise - 0.5), -0.5, 0.5))
