from seg_plugins.config import ConfigError
from seg_plugins.modeling.meta_arch.patch_classifier import PatchClassifier, PatchHead, PatchNetwork

import pytest
import torch


def build(*, num_classes: int = 3, kernels=(4, 3), **arguments) -> PatchClassifier:
    network = PatchNetwork(in_channels=2, channels=6, kernels=kernels, hidden=8)
    return PatchClassifier(
        backbone=network,
        sem_seg_head=PatchHead(network.output_shape(), num_classes=num_classes),
        pixel_mean=[0.0, 0.0],
        pixel_std=[1.0, 1.0],
        **arguments,
    )


@pytest.mark.parametrize(("kernels", "window"), [((4, 5, 4, 4), 95), ((4, 3), 19), ((4, 3, 3), 39)])
def test_window_sizes(kernels, window: int) -> None:
    network = PatchNetwork(channels=1, kernels=kernels, hidden=2)
    assert network.window == window
    assert network.output_shape()["window"].origin == window // 2
    assert network.classify_windows(torch.zeros(1, 1, window, window))["window"].shape == (
        1,
        2,
        1,
        1,
    )
    assert network(torch.zeros(1, 1, window, window + 2))["window"].shape == (1, 2, 1, 3)


def test_windows_without_a_centre_are_refused() -> None:
    with pytest.raises(ConfigError, match="no centre"):
        PatchNetwork(kernels=(3, 3))


@pytest.mark.parametrize("size", [(7, 9), (24, 17)])
def test_dense_evaluation_equals_the_naive_one(size) -> None:
    model = build(chunk=50).eval()
    inputs = [{"image": torch.rand(2, *size)}, {"image": torch.rand(2, 12, 8)}]
    with torch.no_grad():
        dense = [result["sem_seg"] for result in model(inputs)]
        model.naive = True
        naive = [result["sem_seg"] for result in model(inputs)]
    assert dense[0].shape == (3, *size)
    torch.testing.assert_close(dense, naive, rtol=1e-4, atol=1e-5)


def test_score_of_a_pixel_comes_from_the_mirrored_window_around_it() -> None:
    model = build().eval()
    image = torch.rand(2, 30, 30)
    with torch.no_grad():
        scores = model([{"image": image}])[0]["sem_seg"]
        window = image[None, :, 2:21, 5:24]  # 19x19 around (11, 14)
        expected = model.sem_seg_head.layers(model.backbone.classify_windows(window))
    torch.testing.assert_close(scores[:, 11, 14], expected[0, :, 0, 0], rtol=1e-4, atol=1e-5)


def test_training_windows_belong_to_their_labels(monkeypatch) -> None:
    # The image shows each pixel's label: a window's centre must equal the label it comes with.
    model = build(samples_per_image=300)
    seen = {}
    classify = model.backbone.classify_windows

    def spy(windows):
        seen["centre"] = windows[:, 0, 9, 9]
        return classify(windows)

    monkeypatch.setattr(model.backbone, "classify_windows", spy)
    model.sem_seg_head.loss.register_forward_pre_hook(
        lambda module, inputs: seen.update(labels=inputs[1])
    )
    labels = torch.zeros(20, 24, dtype=torch.uint8)
    labels[3:5, 7:9] = 1
    labels[10:] = 255
    model([{"image": labels.float().expand(2, -1, -1), "sem_seg": labels}])
    drawn = seen["labels"].flatten()
    assert torch.equal(seen["centre"].long(), drawn)
    # Four of 240 labelled pixels are of class 1, yet both classes are drawn equally often.
    assert 100 < int(drawn.sum()) < 200
    assert set(drawn.tolist()) == {0, 1}


def test_image_without_labels_has_no_loss() -> None:
    labels = torch.full((8, 8), 255, dtype=torch.uint8)
    loss = build()([{"image": torch.rand(2, 8, 8), "sem_seg": labels}])["loss_sem_seg"]
    assert loss.item() == 0
    assert loss.requires_grad
