"""An emulator of Slack's Web API."""
