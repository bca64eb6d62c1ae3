"""Which versions run together? The one compatibility matrix; nothing else in the project names a version of AWS's.

Spark and Python are the same on EMR, on Glue and on a laptop (requirements.in), so that a job tested locally is the
job that runs.
"""

EMR_RELEASE = "emr-7.13.0"  # long support, until 2028-04
GLUE = "5.1"
SPARK = "3.5.6"  # of both, and of the local pyspark
SPARK_PYTHON = "3.11"  # of both; EMR has it beside its default 3.9
AIRFLOW = "3.3.2"
AIRFLOW_PROVIDERS = {"amazon": "9.39.0", "slack": "9.11.0", "ssh": "7.0.0"}
POSTGRESQL = "18.3"  # the embedded one of the tests is 18 as well
POSTGRESQL_MAJORS = ("17", "18")
LAMBDA_PYTHON = "3.13"
EMR_PLATFORM = "aarch64-manylinux_2_28"  # Graviton on Amazon Linux 2023
GLUE_PLATFORM = "x86_64-manylinux_2_28"  # Glue's workers on Amazon Linux 2023
LAMBDA_PLATFORM = "aarch64-manylinux_2_28"  # arm64 on Amazon Linux 2023
