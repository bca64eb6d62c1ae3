"""The client of the Twelve Data API: calls, credits and errors."""
