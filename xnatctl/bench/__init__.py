"""Benchmarks for users: what to try next, what a step saw, where the limit lies, the page."""
