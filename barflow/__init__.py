"""Barflow: 5-minute stock bars from Twelve Data to MongoDB, Parquet and PostgreSQL."""

__version__ = "0.1.0"
