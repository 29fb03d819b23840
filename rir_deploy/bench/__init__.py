"""What a machine is, and how fast an engine is on it."""
