"""The Bar, the exchange's sessions and the validation of rows: pure, without I/O."""
