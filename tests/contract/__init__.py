"""One suite for every source and every sink: what `engine/ports.py` promises."""
