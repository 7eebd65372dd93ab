"""What an export is made of: the example, the formats, and the comparison that a file has to pass."""
