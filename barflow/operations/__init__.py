"""What operators use: deployments, clusters, metrics, summaries, the runbook and expiry."""
