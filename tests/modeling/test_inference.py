from seg_plugins import load_config
from seg_plugins.config import ConfigError
from seg_plugins.modeling.backbones.unet import UNetBackbone
from seg_plugins.modeling.inference import (
    MultiScaleFlip,
    OverlapTile,
    SlidingWindow,
    WholeImage,
    build_inference,
)
from seg_plugins.modeling.meta_arch.semantic import SemanticSystem
from seg_plugins.modeling.sem_seg_heads.unet import SemSegUNetHead

import pytest
import torch
import torch.nn.functional as F


class Pointwise:
    """Scores that depend on their pixel alone: every way to cover an image gives the same."""

    border, alignment = 0, 1

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def logits(self, images):
        self.sizes.append(tuple(images.shape[-2:]))
        return torch.cat([images, -2 * images], dim=1)

    inner_logits = logits

    def valid_size(self, size: int) -> int:
        return size


def unet(**arguments) -> SemanticSystem:
    backbone = UNetBackbone(depth=3, width=4, padding="valid")
    head = SemSegUNetHead(backbone.output_shape(), num_classes=2, padding="valid")
    return SemanticSystem(
        backbone=backbone, sem_seg_head=head, pixel_mean=[0.0], pixel_std=[1.0], **arguments
    )


@pytest.mark.parametrize("gaussian", [True, False])
@pytest.mark.parametrize("size", [(10, 10), (37, 23), (8, 64)])
def test_sliding_windows_of_a_pointwise_model_change_nothing(size, gaussian: bool) -> None:
    model, images = Pointwise(), torch.randn(1, 1, *size)
    found = SlidingWindow((16, 16), (9, 12), gaussian=gaussian)(model, images)
    torch.testing.assert_close(found, Pointwise().logits(images))
    assert all(height <= 16 and width <= 16 for height, width in model.sizes)


def test_sliding_windows_blend_by_distance_from_their_centres() -> None:
    class Counter(Pointwise):
        calls = -1.0

        def logits(self, images):
            self.calls += 1.0
            return torch.full_like(images, self.calls)

    line = SlidingWindow((8, 8), (8, 4))(Counter(), torch.zeros(1, 1, 8, 12))[0, 0, 4]
    assert line[:4].eq(0).all()
    assert line[8:].eq(1).all()
    assert (line[4:8].diff() > 0).all()
    assert line[5] + line[6] == pytest.approx(1.0)


def test_overlap_tiles_equal_one_pass_over_the_mirrored_image() -> None:
    model = unet().eval()
    image = torch.randn(1, 1, 90, 61)
    with torch.no_grad():
        whole = WholeImage()(model, image)
        tiles = OverlapTile((24, 24))(model, image)
    assert whole.shape == (1, 2, 90, 61)
    torch.testing.assert_close(tiles, whole, rtol=1e-4, atol=1e-5)


def test_overlap_tiles_with_context_for_a_padded_network() -> None:
    model, images = Pointwise(), torch.randn(1, 1, 20, 33)
    found = OverlapTile((8, 8), context=3)(model, images)
    torch.testing.assert_close(found, Pointwise().logits(images))
    assert set(model.sizes) == {(14, 14)}


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (64, 64)])
def test_valid_network_covers_any_size_by_mirroring(size) -> None:
    model = unet().eval()
    with torch.no_grad():
        assert model([{"image": torch.rand(1, *size)}])[0]["sem_seg"].shape == (2, *size)


def test_training_mirrors_or_takes_the_inner_part() -> None:
    seen = {}
    for mirror in (True, False):
        model = unet(mirror_border=mirror)
        model.sem_seg_head.loss.register_forward_pre_hook(
            lambda module, inputs, key=mirror: seen.update({key: (inputs[0].shape, inputs[1])})
        )
        labels = torch.zeros(76, 76, dtype=torch.uint8)
        labels[20, 20] = 1
        model([{"image": torch.rand(1, 76, 76), "sem_seg": labels}])
    assert seen[True][0] == (1, 2, 76, 76)
    assert seen[False][0] == (1, 2, 36, 36)  # 76 less 20 on each side
    assert seen[False][1].shape == (1, 36, 36)
    assert seen[False][1][0, 0, 0] == 1


def test_scales_and_flips_average_probabilities() -> None:
    class Sided(Pointwise):
        """Sees class 1 on the left side of whatever it is shown."""

        def logits(self, images):
            columns = torch.linspace(2, -2, images.shape[-1]).expand_as(images)
            return torch.cat([torch.zeros_like(images), columns], dim=1)

    images = torch.zeros(1, 1, 4, 6)
    found = MultiScaleFlip(WholeImage(), [1.0], flip=True)(Sided(), images)
    first = Sided().logits(images).softmax(1)
    torch.testing.assert_close(found.exp(), (first + first.flip(-1)) / 2)


def test_scaled_versions_come_back_to_the_image() -> None:
    model, images = (
        Pointwise(),
        torch.rand(1, 1, 8, 8).expand(1, 1, 8, 8).mean().expand(1, 1, 8, 12),
    )
    found = MultiScaleFlip(WholeImage(), [0.5, 1.0, 1.5], flip=False)(model, images)
    assert model.sizes == [(4, 6), (8, 12), (12, 18)]
    torch.testing.assert_close(found.softmax(1), model.logits(images).softmax(1))


def test_one_class_averages_sigmoids() -> None:
    class Single(Pointwise):
        def logits(self, images):
            return images

    images = torch.tensor([[[[0.0, 2.0]]]])
    found = MultiScaleFlip(WholeImage(), [1.0], flip=True)(Single(), images)
    torch.testing.assert_close(found.sigmoid(), images.sigmoid())


def test_strategy_from_the_configuration() -> None:
    def build(*opts):
        keys = [f"MODEL.INFERENCE.{o}" if i % 2 == 0 else o for i, o in enumerate(opts)]
        return build_inference(load_config("quickstart/deeplabv3plus_r18_shapes.yaml", keys))

    assert isinstance(build(), WholeImage)
    assert build("MODE", "slide", "STRIDE", "[64, 96]").stride == (64, 96)
    assert build("MODE", "overlap_tile", "CONTEXT", "32").context == 32
    wrapped = build("MODE", "slide", "FLIP", "True")
    assert isinstance(wrapped, MultiScaleFlip)
    assert isinstance(wrapped.inner, SlidingWindow)
    for opts, message in ((("MODE", "tile"), "overlap_tile"), (("SCALES", "[0.0]"), "SCALES"),
                          (("MODE", "slide", "STRIDE", "[0, 8]"), "STRIDE")):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            build(*opts)


def test_slide_keeps_the_image_interpolation_free() -> None:
    # The segmentor hands images one by one and unpadded to windowed strategies.
    seen = []

    class Spy(WholeImage):
        batched = False

        def __call__(self, model, images):
            seen.append(tuple(images.shape))
            return F.pad(images, (0, 0, 0, 0))

    model = unet(inference=Spy()).eval()
    model([{"image": torch.rand(1, 5, 7)}, {"image": torch.rand(1, 9, 3)}])
    assert seen == [(1, 1, 5, 7), (1, 1, 9, 3)]
