import math
from contextlib import nullcontext

from seg_plugins import load_config
from seg_plugins.config import ConfigError
from seg_plugins.modeling.loss_terms import Loss, Losses, Sum
from seg_plugins.modeling.losses import IGNORED, LOSS_REGISTRY, probabilities
from seg_plugins.modeling.semantic_loss import (
    SemanticLoss,
    parse_loss_type,
    resolve_class_weights,
)

import pytest
import torch
import torch.nn.functional as F
from devices import host_never_waits, on_each_device
from torch._subclasses.fake_tensor import FakeTensorMode

LN3 = math.log(3)
LOSSES = ("cross_entropy", "hard_pixel_mining", "ohem", "focal", "dice", "lovasz")


def loss(name: str, logits: torch.Tensor, targets: torch.Tensor, **arguments) -> float:
    return SemanticLoss(loss_type=name, num_classes=logits.shape[1], **arguments)(
        logits, targets
    ).value.item()


def two_classes(*probabilities: float) -> torch.Tensor:
    """Logits (1, 2, 1, W) with these probabilities of class 1."""
    p = torch.tensor(probabilities)
    return torch.stack([(1 - p).log(), p.log()])[None, :, None]


def test_cross_entropy_is_the_mean_over_valid_pixels() -> None:
    logits, targets = two_classes(0.75, 0.75, 0.01), torch.tensor([[[0, 1, 255]]])
    expected = (math.log(4) + math.log(4 / 3)) / 2
    assert loss("cross_entropy", logits, targets) == pytest.approx(expected)


def test_one_class_is_sigmoid_cross_entropy() -> None:
    logits = torch.tensor([[[[LN3, 0.0, 7.0]]]])
    expected = (math.log(4 / 3) + math.log(2)) / 2
    assert loss("cross_entropy", logits, torch.tensor([[[1, 0, 255]]])) == pytest.approx(expected)


def test_pixel_and_class_weights_multiply() -> None:
    function = SemanticLoss(num_classes=2, class_weights=[2.0, 5.0])
    weights = torch.tensor([[[3.0, 1.0]]])
    found = function(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]), weights)
    assert found.value.item() == pytest.approx(math.log(2) * (6 + 5) / 2)


def test_one_class_takes_two_class_weights() -> None:
    function = SemanticLoss(num_classes=1, class_weights=[2.0, 5.0])
    found = function(torch.zeros(1, 1, 1, 2), torch.tensor([[[0, 1]]]))
    assert found.value.item() == pytest.approx(math.log(2) * (2 + 5) / 2)


def test_focal_modulates_by_the_square_of_the_error() -> None:
    found = loss("focal", two_classes(0.75, 0.75), torch.tensor([[[0, 1]]]))
    expected = (0.75**2 * math.log(4) + 0.25**2 * math.log(4 / 3)) / 2
    assert found == pytest.approx(expected)


def test_hard_pixel_mining_counts_a_fifth_of_the_valid_pixels() -> None:
    # Ten valid pixels and many ignored: two count, however many are ignored.
    probability = [0.5, 0.4, *[0.9] * 8, *[0.1] * 30]
    targets = torch.tensor([[[1] * 10 + [255] * 30]])
    expected = -(math.log(0.5) + math.log(0.4)) / 2
    assert loss("hard_pixel_mining", two_classes(*probability), targets) == pytest.approx(expected)


def test_ohem_keeps_what_is_not_learned_yet() -> None:
    targets = torch.ones(1, 1, 16, dtype=torch.long)
    several = two_classes(0.6, 0.5, 0.65, *[0.9] * 13)
    expected = -(math.log(0.6) + math.log(0.5) + math.log(0.65)) / 3
    assert loss("ohem", several, targets) == pytest.approx(expected)
    learned = two_classes(0.8, *[0.95] * 15)  # a sixteenth stays
    assert loss("ohem", learned, targets) == pytest.approx(-math.log(0.8))


def test_ohem_shares_the_last_places_among_equals() -> None:
    # Of 32 pixels two count: the hardest, and one of all those at 0.9, whichever it is.
    probabilities, targets = [0.9] * 32, torch.ones(1, 1, 32, dtype=torch.long)
    probabilities[7] = 0.8
    weights = torch.rand(1, 1, 32)
    others = weights[torch.arange(32).reshape(1, 1, 32) != 7]
    expected = -(math.log(0.8) * weights[0, 0, 7] + math.log(0.9) * others.mean())
    function = SemanticLoss(loss_type="ohem", num_classes=2)
    logits = two_classes(*probabilities).requires_grad_()
    found = function(logits, targets, weights)
    assert found.value.item() == pytest.approx(expected.item() / 2)
    assert [int(mean.count) for mean in found] == [2]
    found.value.backward()
    assert (logits.grad[0, 0, 0] > 0).all()  # none is left out by its place


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_that_is_learned_entirely_has_no_loss_and_no_gradient(name, classes) -> None:
    targets = torch.arange(64).reshape(1, 8, 8) % 2
    targets[0, 0] = 255  # 56 pixels are left
    sign = 1e4 * (2.0 * (targets == 1) - 1)
    logits = torch.stack([-sign, sign], dim=1) if classes == 2 else sign[:, None]
    logits.requires_grad_()
    found = SemanticLoss(loss_type=name, num_classes=classes)(logits, targets)
    found.value.backward()
    assert found.value.item() == pytest.approx(0, abs=1e-6)
    assert torch.equal(logits.grad, torch.zeros_like(logits))
    # Its part in a mean over several batches is that of any other batch.
    expected = {"ohem": [4], "hard_pixel_mining": [12], "cross_entropy": [56], "focal": [56]}
    counts = [int(mean.count) for mean in found if mean.count is not None]
    assert counts == expected.get(name, [])


def test_dice_by_hand() -> None:
    # Class 1: overlap 0.8, sizes 0.8 + 0.4 and 1; class 0: overlap 0.6, sizes 0.2 + 0.6 and 1.
    found = loss("dice", two_classes(0.8, 0.4, 0.9), torch.tensor([[[1, 0, 255]]]))
    assert found == pytest.approx(((1 - 1.6 / 2.2) + (1 - 1.2 / 1.8)) / 2)


def test_dice_leaves_absent_classes_out() -> None:
    logits = torch.tensor([[[20.0]], [[0.0]], [[0.0]]])[None]
    assert loss("dice", logits, torch.zeros(1, 1, 1, dtype=torch.long)) == pytest.approx(
        0, abs=1e-6
    )


def jaccard_loss(mistakes: set[int], members: set[int]) -> float:
    """1 - IoU of a class when exactly these pixels are labelled wrongly."""
    found = members ^ mistakes
    return 1 - len(members & found) / len(members | found)


@pytest.mark.parametrize("classes", [1, 3])
def test_lovasz_equals_the_extension_computed_step_by_step(classes: int) -> None:
    logits, targets = torch.randn(1, classes, 3, 4), torch.randint(0, max(classes, 2), (1, 3, 4))
    targets[0, 0, 0] = 255
    pixels = [i for i in range(12) if targets.flatten()[i] != 255]
    probability = logits.sigmoid() if classes == 1 else logits.softmax(1)
    values = []
    for c in range(classes):
        label = 1 if classes == 1 else c
        members = {i for i in pixels if targets.flatten()[i] == label}
        if not members:
            continue
        p = probability[0, c].flatten()
        error = {i: float(1 - p[i] if i in members else p[i]) for i in pixels}
        order = sorted(pixels, key=lambda i, e=error: -e[i])
        total, mistakes, before = 0.0, set(), 0.0
        for i in order:
            mistakes.add(i)
            after = jaccard_loss(mistakes, members)
            total += error[i] * (after - before)
            before = after
        values.append(total)
    assert loss("lovasz", logits, targets) == pytest.approx(sum(values) / len(values), abs=1e-5)


def test_lovasz_of_hard_predictions_is_one_minus_iou() -> None:
    # Class 1: one hit, one miss, one false alarm: IoU 1/3; class 0: one hit: IoU 1/3.
    logits = two_classes(1.0, 0.0, 1.0, 0.0).nan_to_num(neginf=-1e4)
    targets = torch.tensor([[[1, 1, 0, 0]]])
    assert loss("lovasz", logits, targets) == pytest.approx(2 / 3, abs=1e-5)


def test_weighted_sum() -> None:
    logits, targets = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    parts = {name: loss(name, logits, targets) for name in ("cross_entropy", "dice")}
    found = loss("cross_entropy+0.5 * dice", logits, targets)
    assert found == pytest.approx(parts["cross_entropy"] + 0.5 * parts["dice"])
    assert parse_loss_type("2*focal + 1e-1 * lovasz") == [
        (2.0, "focal", {}),
        (0.1, "lovasz", {}),
    ]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("classes", [1, 3])
def test_all_pixels_ignored_gives_zero_and_a_zero_gradient(name: str, classes: int) -> None:
    logits = torch.randn(1, classes, 2, 2, requires_grad=True)
    targets = torch.full((1, 2, 2), 255)
    found = SemanticLoss(loss_type=name, num_classes=classes)(logits, targets).value
    found.backward()
    assert found.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("classes", [1, 4])
def test_ignored_pixels_change_neither_loss_nor_gradient(name: str, classes: int) -> None:
    targets = torch.randint(0, max(classes, 2), (2, 6, 6))
    targets[:, :, 3:] = 255
    results = []
    for _ in range(2):
        logits = torch.arange(72.0 * classes).sin().reshape(2, classes, 6, 6)
        logits[..., 3:] = torch.randn(2, classes, 6, 3) * 5
        logits.requires_grad_()
        value = SemanticLoss(loss_type=name, num_classes=classes)(logits, targets).value
        value.backward()
        assert not logits.grad[..., 3:].any()
        results.append((value.detach(), logits.grad))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("share", [0.01, 0.9])
def test_nan_is_not_left_out(name: str, classes: int, share: float) -> None:
    logits = torch.randn(1, classes, 10, 10)
    logits[:, :, : max(1, int(10 * share)), : max(1, int(10 * share))] = math.nan
    assert math.isnan(loss(name, logits, torch.randint(0, 2, (1, 10, 10))))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("classes", [1, 4])
def test_no_shape_depends_on_the_labels(name: str, classes: int) -> None:
    """Fake tensors have no values, so the host can neither read one nor wait for a GPU's."""
    with FakeTensorMode():
        logits = torch.randn(2, classes, 5, 7, requires_grad=True)
        targets = torch.randint(0, 2, (2, 5, 7))
        SemanticLoss(loss_type=name, num_classes=classes)(logits, targets).value.backward()
        assert logits.grad.shape == logits.shape


@on_each_device
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("classes", [1, 4])
def test_the_host_never_waits(device: str, name: str, classes: int) -> None:
    logits = torch.randn(2, classes, 5, 7).to(device).requires_grad_()
    targets = torch.randint(0, 2, (2, 5, 7)).to(device)
    targets[0, :2] = 255
    function = SemanticLoss(loss_type=name, num_classes=classes).to(device)
    for _ in range(2):  # what is set up once may wait
        with host_never_waits(device) if logits.grad is not None else nullcontext():
            function(logits, targets).value.backward()
    on_the_cpu = logits.detach().cpu().requires_grad_()
    expected = function.cpu()(on_the_cpu, targets.cpu()).value
    torch.testing.assert_close(function.to(device)(logits, targets).value.cpu(), expected)
    expected.backward()
    torch.testing.assert_close(logits.grad.cpu() / 2, on_the_cpu.grad)


@pytest.mark.parametrize("name", LOSSES)
def test_descent_learns_the_targets(name: str) -> None:
    logits, targets = torch.zeros(1, 3, 4, 4, requires_grad=True), torch.randint(0, 3, (1, 4, 4))
    function = SemanticLoss(loss_type=name, num_classes=3)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        function(logits, targets).value.backward()
        optimizer.step()
    assert torch.equal(logits.argmax(1), targets)


def test_half_precision_logits_are_computed_in_float32() -> None:
    logits, targets = torch.randn(1, 3, 4, 4).half(), torch.randint(0, 3, (1, 4, 4))
    found = SemanticLoss(num_classes=3)(logits, targets).value
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, F.cross_entropy(logits.float(), targets))


def test_one_hot_targets_belong_to_the_valid_pixels() -> None:
    targets = torch.tensor([[[IGNORED, 1]]])
    probability, target = probabilities(two_classes(0.8, 0.3), targets, targets != IGNORED)
    torch.testing.assert_close(probability, torch.tensor([[[[0.0, 0.7]], [[0.0, 0.3]]]]))
    assert target.tolist() == [[[[False, False]], [[False, True]]]]


def test_the_mean_of_two_processes_is_that_of_all_pixels(monkeypatch) -> None:
    # Process 0 has 3 pixels with sum 6, process 1 has 1 pixel with sum 10: (6 + 10) / 4.
    module = "seg_plugins.modeling.loss_terms."
    monkeypatch.setattr(module + "comm.get_world_size", lambda: 2)
    monkeypatch.setattr(module + "dist.all_reduce", lambda count: count.fill_(4))
    parts = [
        Loss.of(Sum(torch.tensor(total), torch.tensor(count))).value
        for total, count in ((6.0, 3), (10.0, 1))
    ]
    assert torch.stack(parts).mean().item() == pytest.approx(4.0)


def test_class_weights_from_the_configuration() -> None:
    path, key = "quickstart/deeplabv3plus_r18_shapes.yaml", "MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS"
    assert load_config(path).MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS is None
    for value, expected in (("none", "none"), ("[1.0, 2.0]", [1.0, 2.0])):
        assert expected == load_config(path, [key, value]).MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS
    assert resolve_class_weights("none", 3) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0, 2.0], "2 factors, but 3 are needed"),
        ("median_frequency", "worked out from the training set"),
    ],
)
def test_wrong_class_weights_name_the_fix(value, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SemanticLoss(num_classes=3, class_weights=value)(
            torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long)
        )


@pytest.mark.parametrize(
    "text",
    [
        *("", "crossentropy", "cross_entropy + ", "x * dice", "dice - focal", "-1 * dice"),
        *("dice()()", "[1] * dice", "1j * dice", "None * dice", "{} * dice", "1e400 * dice"),
        *("True * dice", "'nan' * dice", "0.5 * (dice + focal)", "dice\nfocal", "dice\0", None, 3),
        *("+".join(["dice"] * 3000), "(" * 300 + "dice" + ")" * 300, "-" * 10000 + "1 * dice"),
        *("focal(gamma={[]: 1})", "focal(gamma=__import__('os'))", "os.abort()", "lambda: 1"),
    ],
)
def test_unknown_loss_lists_the_known(text: str) -> None:
    with pytest.raises(ConfigError, match=r"cross_entropy, hard_pixel_mining.*lovasz"):
        parse_loss_type(text)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_registered(name: str) -> None:
    assert name in LOSS_REGISTRY


def test_options_of_a_loss() -> None:
    logits, targets = two_classes(0.75, 0.75), torch.tensor([[[0, 1]]])
    expected = (0.75**1.5 * math.log(4) + 0.25**1.5 * math.log(4 / 3)) / 2
    assert loss("focal(gamma=1.5)", logits, targets) == pytest.approx(expected)
    assert loss("2 * focal(gamma=0)", logits, targets) == pytest.approx(
        2 * loss("cross_entropy", logits, targets)
    )
    # A probability of 0.75 is learned at the threshold 0.7, and not at 0.8: both pixels count.
    easy = two_classes(0.75, 0.95)
    assert loss("ohem(threshold=0.8)", easy, torch.ones(1, 1, 2, dtype=torch.long)) == (
        pytest.approx(-math.log(0.75))
    )
    # Of four pixels the two hardest.
    four = two_classes(0.5, 0.4, 0.9, 0.9)
    assert loss("hard_pixel_mining(one_in=2)", four, torch.ones(1, 1, 4, dtype=torch.long)) == (
        pytest.approx(-(math.log(0.5) + math.log(0.4)) / 2)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("focal(gama=2)", r"focal has no option 'gama'. It has gamma=2.0"),
        ("dice(smooth=1)", r"dice has no option 'smooth'. It has none"),
        ("ohem(threshold='low')", r"ohem\(threshold='low'\) should be like .* threshold=0.7"),
        ("ohem(one_in=2.5)", r"ohem\(one_in=2.5\) should be like its usual value, one_in=16"),
        ("focal(gamma=1, gamma=2)", "focal has its option 'gamma' twice|cannot be read"),
        ("focal(gamma=1e400)", "should be like its usual value, gamma=2.0"),
        ("focal(2.0)", "cannot be read.*gamma=1.5"),
        ("focal(gamma=x)", "cannot be read"),
        ("focal(**{'gamma': 1})", r"no option '\*\*'"),
    ],
)
def test_wrong_options_list_the_known(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"LOSS_TYPE '.*{message}"):
        parse_loss_type(text)


@pytest.mark.parametrize(
    "text",
    ["focal(gamma=-1)", "ohem(threshold=0)", "ohem(one_in=0)", "hard_pixel_mining(one_in=-3)"],
)
def test_options_out_of_their_range_are_named(text: str) -> None:
    option = text.partition("(")[2].rstrip(")")
    with pytest.raises(ConfigError, match=f"LOSS_TYPE: .*{option}"):
        loss(text, two_classes(0.5), torch.zeros(1, 1, 1, dtype=torch.long))


def test_losses_know_what_they_are_means_of() -> None:
    """Of a sum each term, scaled alike; a plain tensor is a mean over images."""
    logits = torch.randn(1, 3, 2, 2)
    targets = torch.tensor([[[0, 1], [255, 2]]])
    found = SemanticLoss(loss_type="cross_entropy + 0.5 * dice", num_classes=3)(logits, targets)
    losses = Losses({"loss_sem_seg": found.times(3.0), "loss_box": torch.tensor(2.0)})
    assert [mean.count for mean in losses.loss("loss_sem_seg")] == [3, None]
    assert losses["loss_sem_seg"].item() == pytest.approx(3 * found.value.item())
    assert [mean.count for mean in losses.loss("loss_box")] == [None]
    joined = losses.joined({"loss_cls": torch.tensor(1.0)})
    assert list(joined) == ["loss_sem_seg", "loss_box", "loss_cls"]
    assert [mean.count for mean in joined.loss("loss_sem_seg")] == [3, None]
    # However a dict's value is replaced, what was known of the old one is forgotten.
    for change in (joined.__setitem__, lambda k, v: joined.update({k: v})):
        change("loss_sem_seg", torch.tensor(7.0))
        assert [(float(v), n) for v, n in joined.loss("loss_sem_seg")] == [(7.0, None)]


def test_terms_of_a_sum_share_one_softmax(monkeypatch) -> None:
    calls = []
    softmax = torch.Tensor.log_softmax
    monkeypatch.setattr(
        torch.Tensor, "log_softmax", lambda x, dim: calls.append(dim) or softmax(x, dim)
    )
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss("cross_entropy + dice + lovasz + focal", logits, torch.zeros(1, 2, 2, dtype=torch.long))
    assert calls == [1]
