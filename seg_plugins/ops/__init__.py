"""Operators of the package: compiled where a compiler was there, with fallbacks where not."""
