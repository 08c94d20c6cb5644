"""A mapper: the package's semantic one, and a random brightness."""

from seg_plugins.data import MAPPER_REGISTRY, SemanticMapper, generator


@MAPPER_REGISTRY.register()
class BrightnessMapper(SemanticMapper):
    """Any class or function takes the place that has ``(cfg, is_train)`` and maps a record.

    Random numbers come from `rng`, so that a run can be repeated and resumed.
    """

    def __call__(self, record, rng=None):
        """``image`` (C, H, W) in its raw range and, in training, ``sem_seg`` (H, W)."""
        rng = generator(rng)
        sample = super().__call__(record, rng)
        if self.is_train:
            image = sample["image"] * float(rng.uniform(0.8, 1.25))
            sample["image"] = image.clamp(max=255).to(sample["image"].dtype)
        return sample
