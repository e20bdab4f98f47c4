"""Commands that a student does not need; run as `python -m kit.tools.NAME`, or through make."""
