"""What Detectron2 knows after ``import seg_plugins``."""

from __future__ import annotations

import seg_plugins
from seg_plugins import registration

import detectron2.projects.deeplab
import detectron2.projects.point_rend
import pytest
from detectron2.data import DatasetCatalog
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY
from fvcore.common.registry import Registry


@pytest.mark.parametrize(
    ("registry", "names"),
    [
        (META_ARCH_REGISTRY, "FCN UNet SegNet DeepLabV3Plus PatchClassifier"),
        (
            SEM_SEG_HEADS_REGISTRY,
            "SemSegFCNHead SemSegUNetHead SemSegSegNetHead SemSegDeepLabV3PlusHead",
        ),
        (BACKBONE_REGISTRY, "build_vgg_backbone build_unet_backbone build_timm_backbone"),
    ],
    ids=["systems", "heads", "backbones"],
)
def test_the_names_users_type_are_known(registry, names):
    for name in names.split():
        assert registry.get(name).__module__.startswith("seg_plugins.")


def test_detectron2s_projects_stay_beside_us():
    """They register names of their own when imported; none of ours is among them."""
    theirs = detectron2.projects.deeplab.DeepLabV3PlusHead
    assert SEM_SEG_HEADS_REGISTRY.get("DeepLabV3PlusHead") is theirs
    assert detectron2.projects.point_rend.PointRendSemSegHead.__name__ in SEM_SEG_HEADS_REGISTRY


def test_registering_twice_changes_nothing():
    before = [dict(iter(r)) for r in (META_ARCH_REGISTRY, BACKBONE_REGISTRY)]
    datasets = DatasetCatalog.list()
    seg_plugins.register_all()
    assert [dict(iter(r)) for r in (META_ARCH_REGISTRY, BACKBONE_REGISTRY)] == before
    assert DatasetCatalog.list() == datasets


def test_a_taken_name_is_an_error_that_names_the_owner():
    registry = Registry("test")

    class Thing:
        pass

    registration._register(registry, Thing)
    registration._register(registry, Thing)
    other = type("Thing", (), {})
    with pytest.raises(RuntimeError, match=r"'Thing' is registered in test already, by test_reg"):
        registration._register(registry, other)
