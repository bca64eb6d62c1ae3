"""The three hops (ingest, process, aggregate) and the reconciliation of what they hold."""
