"""Runs beside each other. Training many is in `kit.compare.sweeps`, which imports `solver`."""

from kit.compare.following import follow
from kit.compare.tables import curves, pictures, table

__all__ = ["curves", "follow", "pictures", "table"]
