"""What a model is worth: average precision, slices, comparisons. Loads no torch."""
