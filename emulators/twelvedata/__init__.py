"""What stands in for Twelve Data's API: its rules, its words and its faults, over HTTP."""
