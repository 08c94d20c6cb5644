"""Pictures of labels and predictions."""
