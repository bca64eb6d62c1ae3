"""`barflow doctor`: checks of this machine, its settings, and the services that they name."""
