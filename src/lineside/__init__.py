"""Lineside: typed events from training, validation, prediction and export, read while the loop keeps going."""
