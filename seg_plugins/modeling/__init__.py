"""Models: backbones, semantic heads, meta-architectures, losses and inference."""
