"""DICOM objects as files: what an object is, and how its header is changed. No network, no engine.

Headers are read and written by pydicom, which is imported where it is first needed.
"""
