"""The catalogue of datasets, the readers of their layouts, and the generated dataset."""
