"""The REST vocabulary of XNAT: one method is one request, no policy."""
