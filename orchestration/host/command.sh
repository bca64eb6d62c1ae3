#!/usr/bin/env bash
# `barflow` and `airflow` on the host's PATH: run the command with the settings of the deployment. They contain no secret.
set -euo pipefail
name=${0##*/}
set -a
# shellcheck source=/dev/null
. "${BARFLOW_ROOT:-}/run/barflow/$name.env"
set +a
exec "${BARFLOW_ROOT:-}/opt/barflow/venv/bin/$name" "$@"
