"""An emulator of the Twelve Data API: its rules, its messages and its faults, over HTTP."""
