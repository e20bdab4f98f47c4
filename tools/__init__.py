"""Commands that a student does not need; run as `python -m tools.NAME`, or through make."""
