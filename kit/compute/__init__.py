"""How networks compute: devices, layers, learning, enlarging."""
