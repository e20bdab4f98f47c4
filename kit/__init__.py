"""The machinery of the kit: README.md beside this file is its map."""
