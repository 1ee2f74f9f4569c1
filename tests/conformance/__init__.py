"""Other people's XNAT clients, unmodified, against the sandbox."""
