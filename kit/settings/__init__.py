"""Every setting of a run, the recipes, and how both are read."""
