"""Backbones: image batch in, a dict of named feature maps out, declared by ``ShapeSpec``."""
