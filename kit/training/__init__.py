"""How a run goes through its phases."""
