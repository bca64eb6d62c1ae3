"""Operations: deployments, clusters, process runs, metrics, run summaries, the runbook and expiry."""
