"""Observers of the event stream, and the one place that writes to the terminal."""
