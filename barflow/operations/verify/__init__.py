"""`barflow verify`: checks of a deployed environment. A check removes what it creates."""
