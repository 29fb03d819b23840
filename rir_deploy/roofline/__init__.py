"""What a machine can do at most, and what that makes of the time of a network's layers."""
