"""Programs for those who work on Barflow: they generate files and review changes."""
