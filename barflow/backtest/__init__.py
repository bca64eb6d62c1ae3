"""Backtests: alert rules over the archive, by the code that evaluates live bars."""
