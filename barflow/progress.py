"""Progress messages: the callback through which library code reports to its caller."""

from collections.abc import Callable

# Takes one line without a newline: a command prints it to stderr, a function logs it.
Log = Callable[[str], None]
