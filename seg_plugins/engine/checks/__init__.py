"""What is checked before a run: each value, its agreement with others, data, folder, metric."""
