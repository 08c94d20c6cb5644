"""Meta-architectures: Detectron2's input dicts in, losses or predictions out."""
