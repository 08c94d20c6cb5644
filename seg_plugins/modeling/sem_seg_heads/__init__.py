"""Semantic segmentation heads: named feature maps in, per-pixel class scores or losses out."""
