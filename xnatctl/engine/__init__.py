"""Transfers: knows no URL and no terminal."""
