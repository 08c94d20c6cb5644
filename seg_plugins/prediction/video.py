"""Videos frame by frame: pictures become a video, everything else a file for each frame."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

from ..data import DatasetError
from ..io.files import WriteError, whole_file
from ..visualization import legend
from .errors import PredictionError
from .outputs import OutputOptions, class_records, draw, output_path, require
from .prediction import Prediction
from .predictor import Predictor

# What has a colour for each pixel; masks would not survive a video's compression.
KINDS = ("overlay", "color", "blur")
# Containers that say how many frames they hold; of others OpenCV works it out from the duration,
# and is right to about this share.
_COUNTED = (".avi", ".m4v", ".mov", ".mp4")
_ESTIMATE = 0.9


class Smoothing:
    """An exponential moving average of class probabilities: steadier edges, some delay.

    Args:
        share: of the past in each frame, 0 (none) to below 1.
    """

    def __init__(self, share: float) -> None:
        if not 0 <= share < 1:
            raise PredictionError(f"smoothing of {share}: it should be at least 0 and below 1")
        self.share = share
        self._mean: torch.Tensor | None = None

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """(K, H, W) logits of the next frame to averaged probabilities; K = 1: minus a half."""
        chances = logits.float().sigmoid() if len(logits) == 1 else logits.float().softmax(0)
        if self._mean is None or self._mean.shape != chances.shape:
            self._mean = chances
        else:
            self._mean = self._mean.lerp(chances, 1 - self.share)
        return self._mean - 0.5 if len(logits) == 1 else self._mean


def predict_video(
    predictor: Predictor,
    path: Path,
    folder: Path,
    name: str,
    options: OutputOptions,
    smoothing: float = 0.0,
) -> dict[str, Any]:
    """Predict a video and write one for each kind of output, ``folder/kind/name.mp4``.

    Args:
        predictor: of any system.
        path: the video.
        folder: holds a folder for each kind.
        name: of the outputs.
        options: overlay, color or blur.
        smoothing: see :class:`Smoothing`; semantic systems only.

    Returns:
        ``height``, ``width``, ``frames``, the ``regions`` of the record (pixels of each class in
        all frames, none where the system finds instances only) and the ``files``.

    Raises:
        DatasetError: the file is no video, or frames of it are missing; the outputs hold the others
            then.
        ValueError: outputs or smoothing that cannot be had.
    """
    require(
        options.save,
        KINDS,
        "videos",
        f"For these predict the frames: ffmpeg -i {path.name} frames/%06d.png, --input frames",
    )
    if smoothing and (predictor.labels.things or not predictor.labels.stuff):
        raise PredictionError(
            "smoothing needs a semantic system, whose class probabilities it averages; this one "
            "finds things: leave --smooth out"
        )
    average = Smoothing(smoothing) if smoothing else None
    counts = np.zeros(len(predictor.labels.stuff), np.int64)
    frames, shape = 0, (0, 0)
    with contextlib.ExitStack() as stack:
        capture, rate, length = stack.enter_context(_open(path))
        writers = {
            kind: stack.enter_context(
                VideoWriter.open(output_path(folder, kind, name, ".mp4"), rate)
            )
            for kind in options.save
        }
        bar = stack.enter_context(
            tqdm(total=length, desc=path.name, unit="frame", leave=False, disable=None)
        )
        for batch in _batches(capture, predictor.batch_size):
            for prediction in _predict(predictor, batch, average):
                for kind, writer in writers.items():
                    writer.write(_picture(prediction, kind, options))
                if prediction.semantic is not None:
                    ids = prediction.semantic[prediction.semantic < len(counts)]
                    counts += np.bincount(ids, minlength=len(counts))
                frames, shape = frames + 1, prediction.image.shape[:2]
                bar.update()
        if not frames:
            raise DatasetError(f"{path}: no frame can be read")
    files = [output_path(folder, kind, name, ".mp4") for kind in options.save]
    _check_length(path, frames, length, files)
    return {
        "height": shape[0],
        "width": shape[1],
        "frames": frames,
        "regions": class_records(counts, predictor.labels),
        "files": files,
    }


def _check_length(path: Path, frames: int, length: int | None, files: list[Path]) -> None:
    """Raise DatasetError where a video has fewer frames than it says: cut short or damaged."""
    exact = path.suffix.lower() in _COUNTED
    least = 0 if length is None else length if exact else _ESTIMATE * length
    if frames < least:
        raise DatasetError(
            f"{path}: {frames} of {'' if exact else 'about '}{length} frames can be read, the rest "
            f"is missing or damaged; {', '.join(map(str, files))} hold those {frames}"
        )


def _predict(
    predictor: Predictor, frames: list[np.ndarray], average: Smoothing | None
) -> list[Prediction]:
    pictures = [predictor.preparation.from_array(frame, "BGR") for frame in frames]
    if average is None:
        return predictor.predict(pictures)
    return [
        Prediction.from_output(
            {"sem_seg": average(output["sem_seg"])},
            picture.image,
            predictor.labels,
            predictor.min_score,
        )
        for picture, output in zip(pictures, predictor.outputs(pictures), strict=True)
    ]


def _picture(prediction: Prediction, kind: str, options: OutputOptions) -> np.ndarray:
    if kind != "overlay":
        return draw(prediction, kind, options)
    # The same classes in each frame, so that the picture keeps its size.
    hidden = prediction.labels.clear(options.clear)
    entries = [(one.color, one.name) for one in prediction.labels.all if one.name not in hidden]
    picture = prediction.draw(with_legend=False, clear=options.clear)
    return picture if prediction.instances is not None else legend.below(picture, entries)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[tuple[cv2.VideoCapture, float, int | None]]:
    """The video, its frames per second, and how many it says it has."""
    if not path.is_file():
        raise DatasetError(f"{path}: no such file")
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise DatasetError(f"{path}: not a readable video")
        rate = capture.get(cv2.CAP_PROP_FPS)
        length = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        yield capture, rate if 0 < rate < 1000 else 25.0, length if length > 0 else None
    finally:
        capture.release()


def _batches(capture: cv2.VideoCapture, size: int) -> Iterator[list[np.ndarray]]:
    """Lists of (H, W, 3) frames, BGR."""
    batch: list[np.ndarray] = []
    while True:
        there, frame = capture.read()
        if there:
            batch.append(frame)
        if batch and (not there or len(batch) == size):
            yield batch
            batch = []
        if not there:
            return


class VideoWriter:
    """A video that is opened with the size of its first picture.

    Args:
        path: the file.
        rate: frames per second.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate, self.frames = path, rate, 0
        self._writer: cv2.VideoWriter | None = None

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path, rate: float) -> Iterator[VideoWriter]:
        """A writer whose file takes its name when all is written."""
        with whole_file(path) as temporary:
            writer = cls(temporary, rate)
            try:
                yield writer
            finally:
                if writer._writer is not None:
                    writer._writer.release()
            writer.check()

    def write(self, picture: np.ndarray) -> None:
        """Append an (H, W, 3) RGB picture; odd sizes get another row or column, as codecs ask."""
        height, width = picture.shape[:2]
        even = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self._writer is None:
            size = (even.shape[1], even.shape[0])
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self.path), code, self.rate, size)
            if not self._writer.isOpened():
                raise WriteError(f"{self.path}: OpenCV cannot write MPEG-4 here")
        self._writer.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))
        self.frames += 1

    def check(self) -> None:
        """Raise WriteError where frames were lost: OpenCV tells nothing of a full disk."""
        written = cv2.VideoCapture(str(self.path))
        count = int(written.get(cv2.CAP_PROP_FRAME_COUNT))
        written.release()
        if count != self.frames:
            raise WriteError(
                f"{self.path}: {count} of {self.frames} frames were written (disk full?)"
            )
