"""The inference that systems share which find semantic labels and instances, and merge the two."""

from __future__ import annotations

from typing import Any

from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from ..instance_representations.base import Features
from ..panoptic_merging import merge_panoptic
from ..postprocessing import sem_seg_postprocess
from ..test_time.probabilities import MeanProbability
from ..test_time.views import View, Views
from .mask_rcnn import wanted_size


class PanopticOutput(nn.Module):
    """Put before a system of instances among the bases.

    That system has a ``backbone`` and the methods ``batches``, ``finish`` and ``find_in_views``, as
    :class:`~.mask_rcnn.MaskRCNNFPN` and :class:`~.one_stage.OneStageInstanceSegmentor` do.
    """

    backbone: nn.Module
    #: Semantic label of each instance class; empty where label 0 stands for all things.
    thing_ids: list[int]

    def find_both(
        self, images: ImageList, features: Features
    ) -> tuple[list[Instances], list[Tensor]]:
        """Of each image the Instances and the logits (L, h, w), both at the network's size."""
        raise NotImplementedError

    def merging(self) -> dict[str, Any]:
        """Arguments of :func:`~..panoptic_merging.merge_panoptic`: the thresholds and thing ids."""
        raise NotImplementedError

    def inference(self, batched_inputs: list[dict[str, Any]], do_postprocess: bool = True) -> Any:
        """Predict the three tasks.

        Args:
            batched_inputs: see ``forward``.
            do_postprocess: bring the results to the wanted size and merge them.

        Returns:
            One dict per image with ``sem_seg`` (L, height, width) logits, ``instances`` and
            ``panoptic_seg``, the pair that :func:`~..panoptic_merging.merge_panoptic` returns. With
            `thing_ids`, ``pred_classes`` are semantic labels, the contiguous ids of a dataset that
            numbers things and stuff together.
            Without post-processing: the Instances and the logits of all images, padded.
        """
        found: list[Any] = [None] * len(batched_inputs)
        for images, places in self.batches(batched_inputs):
            both = self.find_both(images, self.backbone(images.tensor))
            for place, instances, logits in zip(places, *both, strict=True):
                found[place] = (instances, logits)
        if not do_postprocess:
            return [instances for instances, _ in found], [logits for _, logits in found]
        return [
            self._result(sample, *both) for sample, both in zip(batched_inputs, found, strict=True)
        ]

    def _result(
        self, sample: dict[str, Any], instances: Instances, logits: Tensor
    ) -> dict[str, Any]:
        size = instances.image_size
        height, width = wanted_size(sample, size)
        semantic = sem_seg_postprocess(logits, size, height, width)
        return self.merged(semantic, self.finish(instances, height, width))

    def predict_views(self, views: Views) -> dict[str, Any]:
        """The three tasks by the views of an image.

        ``sem_seg`` is the logarithm of the mean probability of each label; the instances are found
        as by the system of instances; both are merged as of one view.
        """
        mean = MeanProbability()

        def look(view: View) -> Instances:
            (instances,), (logits,) = self.inference([view.sample], do_postprocess=False)
            mean.add_view(logits, view, views)
            return instances

        instances = self.find_in_views(views, look)
        return self.merged(mean.logits(), instances)

    def merged(self, semantic: Tensor, instances: Instances) -> dict[str, Any]:
        """The output for an image, of its logits and instances at the wanted size."""
        # max's indices are argmax's, in a tenth of the time on a CPU.
        labels = semantic.max(dim=0).indices
        panoptic = merge_panoptic(instances, labels, len(semantic), **self.merging())
        if self.thing_ids:
            ids = instances.pred_classes.new_tensor(self.thing_ids)
            instances.pred_classes = ids[instances.pred_classes]
        return {"sem_seg": semantic, "instances": instances, "panoptic_seg": panoptic}
