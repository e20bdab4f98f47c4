"""The instructor's half of the kit: `python -m teacher COMMAND`. Students do not get this folder."""
