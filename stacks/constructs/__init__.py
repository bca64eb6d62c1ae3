"""Parts that several stacks share."""
