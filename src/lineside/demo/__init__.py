"""The demo: handwritten digits, a small network, and a display drawn from nothing but bus events."""
