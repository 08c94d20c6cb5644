"""What a dict of losses keeps of its members, however it is handed on."""

from __future__ import annotations

import copy
import pickle

from seg_plugins.modeling.loss_terms import Loss, Losses, Mean, Sum

import pytest
import torch


def losses():
    return Losses(
        {"loss_sem_seg": Sum(torch.tensor(3.0), torch.tensor(6)), "loss_box": torch.ones(())}
    )


def updated(found):
    plain = Losses()
    plain.update(found)
    return plain


def joined_in_place(found):
    plain = Losses()
    plain |= found
    return plain


@pytest.mark.parametrize(
    "way",
    [
        copy.copy,
        copy.deepcopy,
        lambda found: pickle.loads(pickle.dumps(found)),
        lambda found: found.copy(),
        lambda found: Losses() | found,
        lambda found: Losses().joined(found),
        updated,
        joined_in_place,
    ],
)
def test_a_copy_knows_what_its_losses_are_means_of(way):
    found = way(losses())
    assert list(found) == ["loss_sem_seg", "loss_box"]
    assert [mean.count for mean in found.loss("loss_sem_seg")] == [6]
    assert [mean.count for mean in found.loss("loss_box")] == [None]
    assert float(found["loss_sem_seg"]) == 0.5


def test_sums_that_are_added_by_update_become_scalars():
    found = losses()
    found.update({"loss_offset": Sum(torch.tensor(8.0), 4)})
    assert float(found["loss_offset"]) == 2.0


def test_a_value_changed_in_place_is_taken_as_it_is_now():
    found = losses()
    for value in found.values():
        value.mul_(2)
    assert float(found.loss("loss_sem_seg").value) == 1.0
    assert float(found.loss("loss_box").value) == 2.0


@pytest.mark.parametrize("loss", [torch.ones(2, 3), torch.ones(0), 1.0, (1.0, 2), None])
def test_what_is_no_scalar_is_refused(loss):
    """Summed in silence, a loss by pixel would train with thousands of times the rate."""
    with pytest.raises(ValueError, match="a loss is a scalar tensor"):
        Loss.of(loss)


def test_a_term_is_added_to_the_first_mean():
    loss = Loss([Mean(torch.tensor(2.0), torch.tensor(4)), Mean(torch.tensor(3.0), None)])
    more = loss.plus(torch.tensor(0.5))
    assert more.value.item() == 5.5
    assert [mean.count for mean in more] == [torch.tensor(4), None]
