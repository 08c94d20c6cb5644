"""Many inputs, one after another: what is bad is listed, what is done is not done again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import torch
from tqdm import tqdm

from ..data import DatasetError
from ..io.rasters import has_rasterio, raster_size
from .coco_files import write_summaries
from .inputs import Picture, Source
from .outputs import (
    RECORDS,
    OutputOptions,
    is_saved,
    output_path,
    relative,
    save_prediction,
    source_of,
    write_record,
)
from .prediction import Prediction
from .predictor import Predictor
from .rasters import predict_raster
from .stacks import predict_stack
from .video import predict_video
from .windows import WindowGrid

logger = logging.getLogger(__name__)

# An input, its picture, and what the model takes of it.
Ready = tuple[Source, Picture, dict[str, Any]]

# What one bad input raises, in reading it, in the network or in writing; the others go on.
BAD_INPUT = (
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    ArithmeticError,
    MemoryError,
    cv2.error,
)


@dataclass(frozen=True)
class RunOptions:
    """How to predict.

    Attributes:
        outputs: what to write.
        grid: windows of large TIFFs.
        window_pixels: TIFFs of more pixels are predicted by windows.
        smoothing: of videos; see :class:`~seg_plugins.prediction.video.Smoothing`.
    """

    outputs: OutputOptions = field(default_factory=OutputOptions)
    grid: WindowGrid = field(default_factory=WindowGrid)
    window_pixels: int = 50_000_000
    smoothing: float = 0.0


@dataclass
class Summary:
    """What became of the inputs.

    Attributes:
        done: predicted and written now.
        skipped: written by an earlier run.
        failed: file and reason of each that could not be predicted.
        files: about all inputs.
    """

    done: int = 0
    skipped: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


def run(
    predictor: Predictor, sources: Sequence[Source], folder: Path, options: RunOptions
) -> Summary:
    """Predict inputs and write what is asked for below a folder.

    An input that an earlier run finished with the same model and options is left alone.

    Raises:
        DatasetError: results of another input would be overwritten.
        PredictionError: something is asked for that the model cannot give.
    """
    options.outputs.check(predictor.labels)
    return _Run(predictor, folder, options).all(sources)


class _Run:
    def __init__(self, predictor: Predictor, folder: Path, options: RunOptions) -> None:
        self.predictor, self.folder, self.options = predictor, folder, options
        settings = {**asdict(options), "min_score": predictor.min_score}
        content = json.dumps(settings, default=str, sort_keys=True)
        self.settings = hashlib.sha256(content.encode()).hexdigest()[:16]
        self.summary = Summary()

    def all(self, sources: Sequence[Source]) -> Summary:
        """Predict the sources; images in batches, with reading and writing beside them."""
        folder, predictor = self.folder, self.predictor
        with (
            _workers(2) as pool,
            tqdm(total=len(sources), unit="file", disable=None) as self.bar,
        ):
            new = [source for source in sources if not self._is_done(source)]
            self._check_owners(new)
            for source in new:  # what an earlier run knew of it is no longer so
                for name in (source.name, *(page.name for page in source.pages)):
                    output_path(folder, RECORDS, name, ".json").unlink(missing_ok=True)
            images = [source for source in new if self._is_small_image(source)]
            writing: deque[tuple[Source, Future]] = deque()
            for batch in _batches(self._read(images, pool), predictor.batch_size):
                for source, prediction in self._predict(batch):
                    writing.append((source, pool.submit(self._save, source, prediction)))
                while len(writing) > 2 * predictor.batch_size:
                    self._finish(*writing.popleft())
            while writing:
                self._finish(*writing.popleft())
            small = set(images)
            for source in new:
                if source not in small:
                    self._predict_large(source)
        if (folder / RECORDS).is_dir():
            self.summary.files = write_summaries(
                folder, folder / RECORDS, predictor.labels, predictor.identity
            )
        return self.summary

    def _is_done(self, source: Source) -> bool:
        if not source.path.is_file() or not is_saved(
            self.folder, source.name, self._fingerprint(source)
        ):
            return False
        self.summary.skipped += 1
        self.bar.update()
        return True

    def _check_owners(self, sources: Sequence[Source]) -> None:
        taken = []
        for source in (part for one in sources for part in (one, *one.pages)):
            owner = source_of(self.folder, source.name)
            if owner is not None and owner != Path(os.path.abspath(source.path)) and owner.exists():
                taken.append(f"{source.path} those of {owner}")
        if taken:
            raise DatasetError(
                f"{self.folder}: {len(taken)} inputs would overwrite results of other files with "
                f"the same name: {taken[0]}. Choose another folder with --output"
            )

    def _is_small_image(self, source: Source) -> bool:
        if source.pages:
            return False
        if source.is_video or source.page is not None:
            return not source.is_video
        return not source.is_tiff or raster_size(source.path) <= self.options.window_pixels

    def _fingerprint(self, source: Source) -> str:
        """Changes with the model, the options and the file."""
        status = source.path.stat()
        pages = ",".join(str(page.page) for page in source.pages)
        file = f"{source.file_name}-{pages}-{status.st_size}-{status.st_mtime_ns}"
        return f"{self.predictor.identity}-{self.settings}-{file}"

    def _read(self, sources: Sequence[Source], pool: ThreadPoolExecutor) -> Iterator[Ready]:
        """Pictures in order, read and resized ahead; those that cannot be read are noted."""
        ahead: deque[tuple[Source, Future]] = deque()
        waiting = iter(sources)
        while True:
            while len(ahead) < 2 * self.predictor.batch_size:
                source = next(waiting, None)
                if source is None:
                    break
                ahead.append((source, pool.submit(self._prepare, source)))
            if not ahead:
                return
            source, future = ahead.popleft()
            try:
                picture, sample = future.result()
            except BAD_INPUT as error:
                self._fail(source, error)
            else:
                yield source, picture, sample

    def _prepare(self, source: Source) -> tuple[Picture, dict[str, Any]]:
        picture = self.predictor.preparation.read(source.path, source.page)
        return picture, self.predictor.sample(picture)

    def _predict(self, batch: list[Ready]) -> Iterator[tuple[Source, Prediction]]:
        sources, pictures, samples = zip(*batch, strict=True)
        try:
            predictions = self.predictor.predict(pictures, samples)
        except BAD_INPUT as error:
            if len(batch) == 1:
                self._fail(batch[0][0], error)
                return
            # One of them is bad: find out which, and keep the others.
            for one in batch:
                yield from self._predict([one])
            return
        yield from zip(sources, predictions, strict=True)

    def _save(self, source: Source, prediction: Prediction) -> None:
        save_prediction(
            prediction,
            self.folder,
            source.name,
            self.options.outputs,
            file_name=source.file_name,
            fingerprint=self._fingerprint(source),
            source=source.path,
        )

    def _finish(self, source: Source, future: Future) -> None:
        try:
            future.result()
        except BAD_INPUT as error:
            self._fail(source, error)
        else:
            self._succeed()

    def _predict_large(self, source: Source) -> None:
        options, outputs = self.options, self.options.outputs
        where = (source.path, self.folder, source.name, outputs)
        try:
            if source.pages:
                found = predict_stack(
                    self.predictor, source, self.folder, outputs, self._fingerprint(source)
                )
            elif source.is_video:
                found = predict_video(self.predictor, *where, options.smoothing)
            else:
                found = predict_raster(self.predictor, *where, options.grid)
            files = found.pop("files")
            record = {
                "name": source.name,
                "file_name": source.file_name,
                "source": os.path.abspath(source.path),
                "frames": 1,
                **found,
                # Those of a stack's pages stand in the pages' records.
                "saved": [] if source.pages else list(outputs.save),
                "files": relative(files, self.folder),
                "fingerprint": self._fingerprint(source),
            }
            write_record(self.folder, source.name, record)
        except BAD_INPUT as error:
            self._fail(source, error)
        else:
            self._succeed()

    def _succeed(self) -> None:
        self.summary.done += 1
        self.bar.update()

    def _fail(self, source: Source, error: Exception) -> None:
        reason = str(error).strip() or type(error).__name__
        if source.is_tiff and not has_rasterio():
            reason += "; with rasterio (pip install seg_plugins[geo]) large TIFFs go by windows"
        self.summary.failed.append((source.path, reason.replace("\n", " ")))
        self.bar.update()


@contextlib.contextmanager
def _workers(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that read and write; at an interrupt they finish the file at hand, and no other."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(pictures: Iterable[Ready], size: int) -> Iterator[list[Ready]]:
    """Neighbours of one size, at most `size` of them."""
    batch: list[Ready] = []
    for ready in pictures:
        if batch and (len(batch) == size or batch[0][1].image.shape != ready[1].image.shape):
            yield batch
            batch = []
        batch.append(ready)
    if batch:
        yield batch


def grid_for(
    model: torch.nn.Module,
    size: int | None = None,
    overlap: int | None = None,
    margin: int | None = None,
) -> WindowGrid:
    """Windows that start on the network's grid.

    Args:
        model: says its largest stride (``alignment``); 64 is taken where it does not.
        size: of a window; None takes 1024.
        overlap: None takes a quarter of the window.
        margin: None takes a 16th of the window.

    Raises:
        ValueError: windows that do not cover the image.
    """
    size = size or WindowGrid.size
    overlap = size // 4 if overlap is None else overlap
    margin = size // 16 if margin is None else margin
    return WindowGrid(size, overlap, margin, getattr(model, "alignment", 64))
