"""The console command `barflow`."""
