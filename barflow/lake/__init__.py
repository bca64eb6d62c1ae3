"""The Parquet archive: partitions, manifests, Athena and export."""
