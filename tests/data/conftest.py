"""Records of the embedded dataset, for each task."""

from __future__ import annotations

import pytest
from detectron2.data import DatasetCatalog


@pytest.fixture(scope="module")
def semantic():
    return DatasetCatalog.get("shapes_val")


@pytest.fixture(scope="module")
def instances():
    return DatasetCatalog.get("shapes_instance_val")


@pytest.fixture(scope="module")
def panoptic():
    return DatasetCatalog.get("shapes_panoptic_val")
