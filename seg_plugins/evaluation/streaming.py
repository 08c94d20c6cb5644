"""What every evaluator shares: one visit per image, merging over processes, result files."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..data import Dataset
from .errors import EvaluationError
from .predictions import RecordStream
from .results import plain_json, readable_json

logger = logging.getLogger(__name__)


class StreamingEvaluator(DatasetEvaluator):
    """Base of the evaluators: scores each image when it comes and keeps only sums or records.

    A subclass names its task, lists the keys of its images and implements :meth:`score_image`,
    :meth:`local_state` and :meth:`summarize`. The state of one image never depends on another's,
    so any split of the images over processes gives the same digits.

    Args:
        dataset_name: registered name, or the :class:`~seg_plugins.data.Dataset`.
        output_dir: folder for the result files, ``<task>_results.json`` and
            ``<task>_per_image.jsonl``; None writes nothing.
        image_keys: one hashable key per image of the dataset, in dataset order.
        save_predictions: write predictions below `output_dir`.
        predictions_file: name of the JSON list of predictions that the subclass then writes to
            ``self.predictions``; None where it writes files of its own.
        predictions_beside: further entries of that file, see
            :class:`~seg_plugins.evaluation.predictions.RecordStream`.
        distributed: gather over all processes; False scores what this process saw.
        allow_missing: score although some images of the dataset never came; the number that did
            is logged and written beside the results.
    """

    #: Key of the results, e.g. ``sem_seg``.
    task: str = ""
    #: The key of an input that says which image it is.
    image_key: str = "file_name"
    #: The key of a model's output that is scored.
    output_key: str = ""
    #: Those of the figures, ``group/name``, of which a lower one is better.
    lower_is_better: frozenset[str] = frozenset()
    #: Whether :meth:`summarize` writes ``<task>_per_image.jsonl``, with the lines in the order of
    #: the visits, instead of :meth:`process` with what :meth:`score_image` returns.
    scores_images_at_end: bool = False

    def __init__(
        self,
        dataset_name: str | Dataset,
        output_dir: str | Path | None = None,
        *,
        image_keys: Sequence[Hashable],
        save_predictions: bool = False,
        predictions_file: str | None = None,
        predictions_beside: Mapping[str, Any] | None = None,
        distributed: bool = True,
        allow_missing: bool = False,
    ) -> None:
        self.dataset = Dataset.get(dataset_name)
        self.dataset_name = dataset_name = self.dataset.name
        self.output_dir = Path(output_dir) if output_dir else None
        self.distributed = distributed
        self.allow_missing = allow_missing
        self._image_keys = image_keys
        self._position = {key: position for position, key in enumerate(image_keys)}
        if len(self._position) != len(image_keys):
            twice = next(key for p, key in enumerate(image_keys) if self._position[key] != p)
            raise EvaluationError(f"{dataset_name} lists the image {twice!r} more than once.")
        self.predictions: RecordStream | None = None
        self._image_scores: RecordStream | None = None
        #: The folder for predictions; None where they are not asked for.
        self.saving_to = self.output_dir if save_predictions else None
        if save_predictions and not self.output_dir:
            raise EvaluationError("save_predictions needs an output_dir to write to.")
        if self.saving_to and predictions_file:
            path = self.saving_to / predictions_file
            self.predictions = RecordStream(
                path, beside=predictions_beside, distributed=distributed
            )
        if self.output_dir and not self.scores_images_at_end:
            path = self.output_dir / f"{self.task}_per_image.jsonl"
            self._image_scores = RecordStream(path, distributed=distributed)
        self.reset()

    # ------------------------------------------------------------------ Detectron2's interface

    def reset(self) -> None:
        """Forget everything seen; called before each round of evaluation."""
        self._visits = np.zeros(len(self._image_keys), dtype=np.uint8)
        for stream in self._streams():
            stream.reset()

    def process(self, inputs: Sequence[Mapping], outputs: Sequence[Mapping]) -> None:
        """Score a batch.

        Args:
            inputs: what the model was given: dicts with the key that names the image.
            outputs: what the model returned, one per input.

        Raises:
            EvaluationError: an unknown image, one that came before, or a prediction that does
                not fit it; the message names the image.
        """
        if len(inputs) != len(outputs):
            raise EvaluationError(
                f"{len(inputs)} inputs but {len(outputs)} outputs; the first image is "
                f"{inputs[0].get(self.image_key) if inputs else None!r}."
            )
        for given, output in zip(inputs, outputs, strict=True):
            position = self._visit(given)
            name = self._image_keys[position]
            if self.output_key and (
                not isinstance(output, Mapping) or self.output_key not in output
            ):
                raise EvaluationError(
                    f"{name}: the model's output has no '{self.output_key}' to score; evaluate "
                    f"on a dataset whose evaluator_type fits the model."
                )
            try:
                scores = self.score_image(position, given, output)
            except (ValueError, OSError) as error:
                raise EvaluationError(f"{name}: {error}") from error
            if self._image_scores:
                names = {key: given.get(key) for key in ("file_name", "image_id")}
                self._image_scores.write([plain_json({**names, **scores})])

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Merge all processes and compute the scores; None on every process but the first.

        Raises:
            EvaluationError: (on every process) an image came twice, or never.
        """
        visits = self._merged_visits()
        self._check_visits(visits)
        for stream in self._streams():
            stream.finish()
        states = comm.gather(self.local_state()) if self.distributed else [self.local_state()]
        if self.distributed and not comm.is_main_process():
            return None
        results = self.summarize(states)
        self._write_results(results, int(np.count_nonzero(visits)))
        return results

    # ------------------------------------------------------------------------- for subclasses

    def key_of(self, given: Mapping) -> Hashable:
        """The key of the image that an input belongs to."""
        return given.get(self.image_key)

    def score_image(self, position: int, given: Mapping, output: Mapping) -> Mapping[str, Any]:
        """Add one image; `position` is its place in the dataset.

        Returns:
            The image's own figures, among them ``score``: percent, higher is better, NaN where
            there is nothing to score. They go to ``<task>_per_image.jsonl`` and nowhere else.
            With :attr:`scores_images_at_end` nobody reads them.
        """
        raise NotImplementedError

    def local_state(self) -> Any:
        """What this process has gathered, picklable."""
        raise NotImplementedError

    def summarize(self, states: Sequence[Any]) -> dict[str, dict[str, float]]:
        """The results from all processes' states, in rank order; main process only."""
        raise NotImplementedError

    def metrics(self) -> dict[str, bool]:
        """The figures that :meth:`evaluate` gives, ``group/name``: whether higher is better.

        To be called before any image: what has been seen is forgotten.
        """
        self.reset()
        results = self.summarize([self.local_state()])
        self.reset()
        names = [f"{group}/{name}" for group, figures in results.items() for name in figures]
        return {name: name not in self.lower_is_better for name in names}

    def extra_json(self) -> dict[str, Any]:
        """Further entries for the results file (after :meth:`summarize`)."""
        return {}

    # ------------------------------------------------------------------------------- visits

    def _visit(self, given: Mapping) -> int:
        key = self.key_of(given)
        position = self._position.get(key) if isinstance(key, Hashable) else None
        if position is None:
            raise EvaluationError(
                f"The image {self.image_key}={key!r} is not in dataset '{self.dataset_name}' "
                f"({len(self._image_keys)} images)."
            )
        if self._visits[position]:
            raise EvaluationError(
                f"{key}: a second prediction for the same image; call reset() before a new round "
                f"and give each image once."
            )
        self._visits[position] = 1
        return position

    def _merged_visits(self) -> np.ndarray:
        if not self.distributed or comm.get_world_size() == 1:
            return self._visits
        return np.sum(comm.all_gather(self._visits), axis=0)

    def _check_visits(self, visits: np.ndarray) -> None:
        twice = np.flatnonzero(visits > 1)
        if twice.size:
            raise EvaluationError(
                f"{self._image_keys[twice[0]]}: predicted in {visits[twice[0]]} processes; each "
                f"image belongs to one ({twice.size} such images). Use a sampler that does not pad."
            )
        missing = np.flatnonzero(visits == 0)
        if not missing.size:
            return
        message = (
            f"{missing.size} of the {visits.size} images of '{self.dataset_name}' were never "
            f"predicted, the first is {self._image_keys[missing[0]]}."
        )
        if not self.allow_missing:
            raise EvaluationError(f"{message} Pass allow_missing=True to score the rest.")
        logger.warning("%s The scores cover the rest.", message)

    # -------------------------------------------------------------------------------- files

    def _streams(self) -> list[RecordStream]:
        return [stream for stream in (self.predictions, self._image_scores) if stream]

    def _write_results(self, results: dict[str, dict[str, float]], scored: int) -> None:
        if self.output_dir is None:
            return
        self.output_dir.mkdir(parents=True, exist_ok=True)
        content = {
            "dataset": self.dataset_name,
            "output": self.output_key,
            "images": {"expected": len(self._image_keys), "scored": scored},
            "results": results,
            **self.extra_json(),
        }
        path = self.output_dir / f"{self.task}_results.json"
        path.write_text(readable_json(content) + "\n", encoding="utf-8")
