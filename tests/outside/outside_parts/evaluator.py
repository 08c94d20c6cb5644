"""An evaluator with an ``evaluator_type`` of its own: how wrong the area of stripes is."""

from seg_plugins.evaluation import EVALUATOR_REGISTRY

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm


class StripeArea(DatasetEvaluator):
    """Mean difference of predicted and true share of class 1, in percent of the image."""

    output_key = "sem_seg"  # of the model's output; other models are not scored

    def __init__(self, dataset):
        self.dataset = dataset
        self.reset()

    def metrics(self):
        """``group/name`` of each figure, and whether higher is better; the first one decides."""
        return {"stripes/area_error": False}

    def reset(self):
        """Before each evaluation."""
        self.errors = []

    def process(self, inputs, outputs):
        """A batch: samples as the mapper gives them, and the model's outputs."""
        for sample, output in zip(inputs, outputs, strict=True):
            labels = self.dataset.read_label(sample["sem_seg_file_name"])
            valid = labels != self.dataset.ignore_label
            found = output["sem_seg"].argmax(0).cpu().numpy()
            difference = (found == 1)[valid].mean() - (labels == 1)[valid].mean()
            self.errors.append(100 * abs(float(difference)))

    def evaluate(self):
        """``{group: {name: number}}`` in the main process, None in the others."""
        errors = [error for part in comm.gather(self.errors) for error in part]
        if not comm.is_main_process():
            return None
        return {"stripes": {"area_error": sum(errors) / max(len(errors), 1)}}


@EVALUATOR_REGISTRY.register("stripes", task="semantic")
def build_stripe_area(cfg, dataset, output_dir):
    """From the configuration, the checked dataset and a folder for files (or None)."""
    return StripeArea(dataset)
