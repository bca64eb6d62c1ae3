"""The compatibility matrix: the versions that run together. No other file names a version of an AWS service.

Spark and Python are the same on EMR, on Glue and on a laptop (requirements.in), so a job that passes its tests on a
laptop runs the same on AWS.
"""

EMR_RELEASE = "emr-7.13.0"  # supported until 2028-04
GLUE = "5.1"
SPARK = "3.5.6"  # on EMR, on Glue and in the local pyspark
SPARK_PYTHON = "3.11"  # on EMR and Glue; EMR has it next to its default, 3.9
AIRFLOW = "3.3.2"
AIRFLOW_PROVIDERS = {"amazon": "9.39.0", "fab": "3.10.2", "openlineage": "2.20.3", "slack": "9.11.0", "ssh": "7.0.0"}
POSTGRESQL = "18.3"  # planned: RDS takes the newest 18; the embedded server of the tests is 18, too
POSTGRESQL_MAJORS = ("17", "18")
# PostgreSQL's JDBC driver for Glue's crawler, which brings one that does not know SCRAM; and its SHA-256.
JDBC_DRIVER = "42.7.13"
JDBC_DRIVER_SHA256 = "6e0e4cc2d8cae902084f8a2b18728b073a6fd9d1f87c9d8bff8f298c18185b93"
LAMBDA_PYTHON = "3.13"
EMR_PLATFORM = "aarch64-manylinux_2_28"  # Graviton on Amazon Linux 2023
GLUE_PLATFORM = "x86_64-manylinux_2_28"  # Glue's workers on Amazon Linux 2023
LAMBDA_PLATFORM = "aarch64-manylinux_2_28"  # arm64 on Amazon Linux 2023
