"""What explanations cost, as ratios to the model's own forward in the same run."""
