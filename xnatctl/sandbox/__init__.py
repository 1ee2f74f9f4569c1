"""An XNAT to practise on. Imports nothing else of this package."""
