"""Emulators of what belongs to others: AWS, the Twelve Data API and Slack."""
