"""Parts that more than one stack is made of."""
