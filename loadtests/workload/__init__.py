"""What the simulated developers send."""
