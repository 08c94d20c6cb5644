"""Test-time augmentation, ``TEST.AUG``: views of an image, and a rule for each kind of system."""
