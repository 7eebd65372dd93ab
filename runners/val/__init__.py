"""What a validation is made of: the pass over the data, and the metrics."""
