"""Stacks of TIFF and volumes of NIfTI, page by page, with their labels in one file again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..io.file_kind import kind_of
from ..io.nifti import read_nifti, write_nifti
from .inputs import Picture, Source
from .label_files import LABEL_KINDS, label_array, label_nothing, tiff_of
from .outputs import OutputOptions, output_path, save_prediction
from .prediction import Prediction
from .predictor import Predictor

Write = Callable[[int, np.ndarray], None]


def predict_stack(
    predictor: Predictor, stack: Source, folder: Path, options: OutputOptions, fingerprint: str
) -> dict[str, Any]:
    """Predict the pages of a file, and write their masks and object numbers into one file each.

    What is no label is written for each page, as if it was a file of its own. Numbers of objects
    begin with 1 on each page.

    Args:
        predictor: of any system.
        stack: with its pages; slices of NIfTI have their neighbours as the further channels that
            the model takes.
        folder: holds a folder for each kind of output.
        options: what to write.
        fingerprint: of all that the result depends on.

    Returns:
        ``height``, ``width``, ``frames``, ``files``; no ``regions``, which the pages' records have.

    Raises:
        DatasetError: a page that cannot be read; no label file is written then.
    """
    is_volume = kind_of(str(stack.path)) == "nifti"
    labels = [kind for kind in options.save if kind in LABEL_KINDS]
    files = {kind: stack_file(folder, kind, stack) for kind in labels}
    open_file = _volume if is_volume else _tiff
    shape = (0, 0)
    with contextlib.ExitStack() as files_open:
        writers: dict[str, Write] = {
            kind: files_open.enter_context(open_file(path, stack, kind, predictor, options))
            for kind, path in files.items()
        }
        for page, prediction in _predictions(predictor, stack, is_volume):
            save_prediction(
                prediction,
                folder,
                page.name,
                options,
                file_name=page.file_name,
                fingerprint=fingerprint,
                source=page.path,
                elsewhere=labels,
            )
            for kind, write in writers.items():
                array = label_array(prediction, kind, options.values)
                # One type for all pages: objects are counted as they come.
                numbers = prediction.semantic is None and options.values != "255"
                counted = kind == "objects" or numbers
                write(page.page or 0, array.astype(np.uint16) if counted else array)
            shape = prediction.image.shape[:2]
    size = {"height": shape[0], "width": shape[1], "frames": len(stack.pages)}
    return {**size, "regions": [], "files": list(files.values())}


def stack_file(folder: Path, kind: str, stack: Source) -> Path:
    """Where the labels of a stack are written."""
    is_volume = kind_of(str(stack.path)) == "nifti"
    return output_path(folder, kind, stack.name, ".nii.gz" if is_volume else ".tif")


def _predictions(
    predictor: Predictor, stack: Source, is_volume: bool
) -> Iterator[tuple[Source, Prediction]]:
    """The pages in order, predicted together where they have one size."""
    size = predictor.batch_size
    pictures = _slices(predictor, stack) if is_volume else _pages(predictor, stack)
    batch: list[tuple[Source, Picture]] = []
    for page, picture in zip(stack.pages, pictures, strict=True):
        if batch and (len(batch) == size or batch[0][1].image.shape != picture.image.shape):
            yield from _batch(predictor, batch)
            batch = []
        batch.append((page, picture))
    yield from _batch(predictor, batch)


def _batch(
    predictor: Predictor, batch: list[tuple[Source, Picture]]
) -> Iterator[tuple[Source, Prediction]]:
    found = predictor.predict([picture for _, picture in batch])
    yield from zip((page for page, _ in batch), found, strict=True)


def _pages(predictor: Predictor, stack: Source) -> Iterator[Picture]:
    for page in stack.pages:
        yield predictor.preparation.read(page.path, page.page)


def _slices(predictor: Predictor, stack: Source) -> Iterator[Picture]:
    volume = read_nifti(stack.path)  # once for all
    for page in stack.pages:
        yield predictor.preparation.from_volume(volume, page.page or 0, str(stack.path))


@contextlib.contextmanager
def _tiff(
    path: Path, stack: Source, kind: str, predictor: Predictor, options: OutputOptions
) -> Iterator[Write]:
    with tiff_of(
        path, stack.path, kind, predictor.labels, options.values, len(stack.pages)
    ) as file:
        yield lambda page, labels: file.write(labels)


@contextlib.contextmanager
def _volume(
    path: Path, stack: Source, kind: str, predictor: Predictor, options: OutputOptions
) -> Iterator[Write]:
    """Slices that are not predicted hold what belongs to no class."""
    slices: dict[int, np.ndarray] = {}
    yield slices.__setitem__
    first = next(iter(slices.values()))
    nothing = label_nothing(kind, predictor.labels, options.values)
    labels = np.full((stack.count, *first.shape), nothing, first.dtype)
    for place, one in slices.items():
        labels[place] = one
    write_nifti(path, labels, stack.path)
