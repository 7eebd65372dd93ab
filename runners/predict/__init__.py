"""What a prediction is made of: the source, the batches, and the bounded way to the reader."""
