"""Which numbers a device has."""

from __future__ import annotations

import torch


def widest_float(device: torch.device) -> torch.dtype:
    """float64; float32 on MPS, which has no other (shares then round at the seventh digit)."""
    return torch.float32 if device.type == "mps" else torch.float64
