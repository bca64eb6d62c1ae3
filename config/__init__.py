"""Settings of each environment, and the versions that work together."""
