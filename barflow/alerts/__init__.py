"""Price alerts: rules, evaluation, outbox and delivery."""
