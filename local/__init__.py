"""The laptop: embedded MongoDB, PostgreSQL and Spark, a simulated market, the demo and its report."""
