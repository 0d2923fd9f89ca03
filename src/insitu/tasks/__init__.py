"""Tasks: a model with its data, metric and card."""
