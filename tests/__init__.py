"""The tests: behaviour through public names."""
