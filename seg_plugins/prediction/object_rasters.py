"""Instances and panoptic segments of a raster of any size: found by windows, put together, written.

The windows give objects, which :mod:`.seams` puts together, and, of panoptic systems, the classes
of the other pixels: there each pixel is the window's in whose middle it lies. Both wait on disk
until all windows are done; then the outputs are written tile by tile.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..io.gaps import no_data
from ..io.masks import to_crop
from ..visualization import overlays
from . import runs as mask_runs
from .mask_values import binary, mask_values
from .object_files import ObjectFiles, outline_place, tiles
from .outputs import OutputOptions, class_records
from .prediction import Prediction, id_type
from .predictor import Predictor
from .raster_windows import RasterWindows, Span
from .seams import Box, Found, Seams
from .spool import MapSpool, ObjectSpool
from .windows import WindowGrid

logger = logging.getLogger(__name__)

# What a raster with objects can give.
KINDS = ("overlay", "mask", "color", "json", "objects", "geojson", "geopackage")
# Those that are rasters themselves.
PICTURES = ("overlay", "mask", "color", "objects")

# Opens the file of a kind of output, with its number of bands and type.
OpenOutput = Callable[[str, int, Any], contextlib.AbstractContextManager]


def predict_objects(
    predictor: Predictor,
    windows: RasterWindows,
    folder: Path,
    name: str,
    options: OutputOptions,
    grid: WindowGrid,
    open_output: OpenOutput,
) -> tuple[list[dict[str, Any]], int]:
    """Predict a raster with a system that finds things, and write what is asked for.

    Args:
        predictor: of an instance or panoptic system.
        windows: of the raster.
        folder: of the temporary files, and of the outputs' folders.
        name: of the outputs.
        options: some of `KINDS`.
        grid: the windows.
        open_output: opens an output.

    Returns:
        The regions for the record, objects by falling score, then classes; and the pixels without
        data.

    Raises:
        DatasetError: no pixel holds data.
        PredictionError: run lengths of a raster that is too large for COCO.
    """
    # What can be told before hours of windows is told before them.
    if "json" in options.save:
        mask_runs.check_coco_size(windows.source.height, windows.source.width)
    place = outline_place(windows.source, options)
    with _Objects(predictor, windows, folder, grid, options) as found:
        found.find()
        found.objects.sort()
        outputs = {kind: found.output(kind) for kind in options.save if kind in PICTURES}
        counts = found.write(outputs, open_output)
        files = ObjectFiles(found.objects, predictor.labels, *found.size)
        files.write_outlines(folder, name, options, place)
        classes = class_records(counts, predictor.labels)
        return [*files.records("json" in options.save), *classes], found.no_data


class _Objects:
    """All that is found in one raster."""

    def __init__(
        self,
        predictor: Predictor,
        windows: RasterWindows,
        folder: Path,
        grid: WindowGrid,
        options: OutputOptions,
    ) -> None:
        self.predictor, self.windows, self.grid = predictor, windows, grid
        self.labels, source = predictor.labels, windows.source
        self.hidden = self.labels.clear(options.clear)
        self.choice = options.values
        self.values = mask_values(self.labels, self.choice)
        self.size = source.height, source.width
        self.no_data = 0
        self.place = {label.name: i for i, label in enumerate(self.labels.all)}
        self.objects = ObjectSpool(folder)
        self.classes: MapSpool | None = None
        if self.labels.stuff:
            self.classes = MapSpool(folder, *self.size, id_type(self.labels))

    def __enter__(self) -> _Objects:
        return self

    def __exit__(self, *_: object) -> None:
        self.objects.close()
        if self.classes is not None:
            self.classes.close()

    def find(self) -> None:
        """Predict all windows."""
        seams = Seams(self.grid, *self.size)
        rows, columns = (self.grid.spans(length) for length in self.size)
        cores = _cores(rows), _cores(columns)
        name = Path(self.windows.source.name).name
        total = len(rows) * len(columns)
        with tqdm(total=total, desc=name, unit="window", leave=False, disable=None) as bar:
            for i, j in itertools.product(range(len(rows)), range(len(columns))):
                picture, gaps = self.windows.read(rows[i], columns[j])
                (top, bottom), (left, right) = cores[0][i], cores[1][j]
                y0, x0 = rows[i][0], columns[j][0]
                own = gaps[top - y0 : bottom - y0, left - x0 : right - x0]
                self.no_data += int(own.sum())
                prediction = Prediction.from_output(
                    self.predictor.outputs([picture], resize=False)[0],
                    picture.image,
                    self.labels,
                    self.predictor.min_score,
                    gaps=gaps if gaps.any() else None,
                )
                seams.add(i, j, list(self._found(prediction, rows[i][0], columns[j][0])))
                if self.classes is not None:
                    start = rows[i][0], columns[j][0]
                    self._keep_classes(prediction, start, (cores[0][i], cores[1][j]))
                if j == len(columns) - 1:
                    for found in seams.finished(i if i < len(rows) - 1 else len(rows)):
                        self.objects.add(found)
                bar.update()
        if self.no_data == self.size[0] * self.size[1]:
            raise no_data(str(self.windows.source.name))
        if seams.dropped:
            logger.info(
                "%s: %d objects; %d pieces that one window alone saw, cut off, are left out",
                name,
                len(self.objects),
                seams.dropped,
            )

    def _found(self, prediction: Prediction, y: int, x: int) -> Iterator[Found]:
        """The things of a window that begins at row `y` and column `x`."""
        for region in prediction.regions:
            if not region.label.is_thing or not region.area:
                continue
            mask, (left, top) = to_crop(region.mask)
            score = 1.0 if region.score is None else region.score
            runs = mask_runs.from_bitmap(mask, y + top, x + left)
            yield Found(self.place[region.label.name], score, runs)

    def _keep_classes(
        self, prediction: Prediction, start: tuple[int, int], core: tuple[Span, Span]
    ) -> None:
        assert self.classes is not None
        assert prediction.semantic is not None  # of every panoptic system
        y0, x0 = start
        (top, bottom), (left, right) = core
        part = prediction.semantic[top - y0 : bottom - y0, left - x0 : right - x0]
        self.classes.write(part, top, left)

    def output(self, kind: str) -> tuple[int, Any]:
        """Bands and type of an output."""
        if kind in ("overlay", "color"):
            return 3, np.uint8
        if kind == "mask" and self.classes is not None:
            return 1, self.values.dtype
        if kind == "mask" and self.choice == "255":
            return 1, np.uint8
        return 1, np.min_scalar_type(len(self.objects))

    def write(self, outputs: dict[str, tuple[int, Any]], open_output: OpenOutput) -> np.ndarray:
        """Write the outputs tile by tile; the (K,) pixels of each class that is no thing."""
        counts = np.zeros(len(self.labels.stuff), np.int64)
        with contextlib.ExitStack() as stack:
            writers = {
                kind: stack.enter_context(open_output(kind, bands, dtype))
                for kind, (bands, dtype) in outputs.items()
            }
            for box in tiles(*self.size):
                y0, x0, y1, x1 = box
                # One pixel more on each side shows where outlines are.
                wide = self.objects.labels((y0 - 1, x0 - 1, y1 + 1, x1 + 1))
                numbers = wide[1:-1, 1:-1]
                classes = self._classes(numbers, box)
                if classes is not None:
                    stuff = classes[(numbers == 0) & (classes < len(counts))]
                    counts += np.bincount(stuff, minlength=len(counts))
                for kind, writer in writers.items():
                    if kind == "objects":
                        block = numbers[None]
                    elif kind == "mask" and classes is None:
                        block = binary(numbers, self.choice)[None]
                    elif kind == "mask":
                        assert classes is not None
                        block = self.values(classes)[None]
                    else:
                        edges = _edges(wide)[1:-1, 1:-1] if kind == "overlay" else None
                        block = self._drawn(numbers, classes, edges, box).transpose(2, 0, 1)
                    writer.write(block.astype(writer.dtypes[0]), window=((y0, y1), (x0, x1)))
        return counts

    def _classes(self, numbers: np.ndarray, box: Box) -> np.ndarray | None:
        """(h, w) class ids of a panoptic tile: of the objects, and of what is no thing."""
        if self.classes is None:
            return None
        classes = self.classes.read(box)
        # A window's thing that is no object of the raster, or not there, is nothing.
        classes[np.isin(classes, self._things)] = self.labels.ignore_label
        return np.where(numbers > 0, self._class_of_object[numbers].astype(classes.dtype), classes)

    @cached_property
    def _things(self) -> list[int]:
        return [i for i, label in enumerate(self.labels.stuff) if label.is_thing]

    @cached_property
    def _class_of_object(self) -> np.ndarray:
        """(N + 1,) class ids by the objects' numbers."""
        labels = self.labels
        place = {label.name: i for i, label in enumerate(labels.stuff)}
        of_class = [place.get(label.name, labels.ignore_label) for label in labels.all]
        return np.array([0, *(of_class[i] for i in self.objects.class_ids)])

    def _drawn(
        self, numbers: np.ndarray, classes: np.ndarray | None, edges: np.ndarray | None, box: Box
    ) -> np.ndarray:
        """(h, w, 3) colours of a tile: over the image and with outlines if there are edges."""
        y0, x0, y1, x1 = box
        image = np.zeros((*numbers.shape, 3), np.uint8)
        if edges is not None:
            image = self.windows.read((y0, y1), (x0, x1))[0].image
        opacity = 1.0 if edges is None else overlays.OPACITY
        if classes is not None:
            stuff = np.array([label.color for label in self.labels.stuff], np.uint8)
            below = np.where(numbers > 0, self.labels.ignore_label, classes)
            if edges is not None:
                below = self.labels.without(below, self.hidden)
            image = overlays.semantic(
                image, below, stuff, self.labels.ignore_label, opacity=opacity
            )
        present, index = np.unique(numbers, return_inverse=True)
        colors = [overlays.instance_color(int(number) - 1) for number in present]
        table = np.array(colors, np.uint8).reshape(-1, 3)
        index = np.where(numbers > 0, index.reshape(numbers.shape), len(table))
        picture = overlays.semantic(image, index, table, len(table), opacity=opacity)
        if edges is not None:
            outlined = edges & (numbers > 0)
            picture[outlined] = table[index[outlined]]
        return picture


def _cores(spans: list[Span]) -> list[Span]:
    """The part of a side that is each window's alone: to the middle of what two share."""
    middles = [(after[0] + before[1]) // 2 for before, after in itertools.pairwise(spans)]
    return list(zip([0, *middles], [*middles, spans[-1][1]], strict=True))


def _edges(numbers: np.ndarray) -> np.ndarray:
    """Pixels with another number above, below, left or right of them."""
    edges = np.zeros(numbers.shape, bool)
    for axis in (0, 1):
        differs = np.diff(numbers.astype(np.int64), axis=axis) != 0
        first, second = (slice(None, -1), slice(1, None))
        for part in (first, second):
            edges[(part, slice(None)) if axis == 0 else (slice(None), part)] |= differs
    return edges
