"""Settings of each environment, and compatible versions."""
