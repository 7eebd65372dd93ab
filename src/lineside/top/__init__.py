"""What ``lineside top`` shows: every run of a journal folder on a terminal, live."""
