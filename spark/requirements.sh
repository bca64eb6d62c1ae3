#!/usr/bin/env bash
# EMR bootstrap action: install the step's packages on every node, from the code bucket only.
# Usage: requirements.sh s3://BUCKET/…/emr.gluewheels.zip (a zip of wheels, and the lock with their hashes)
set -euo pipefail

packages=${1:?"usage: requirements.sh s3://BUCKET/…/emr.gluewheels.zip"}
python=python3.11

"$python" -m pip --version >/dev/null 2>&1 || sudo dnf install --assumeyes --quiet "$python" "$python-pip"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
aws s3 cp --only-show-errors "$packages" "$folder/packages.zip"
"$python" -m zipfile --extract "$folder/packages.zip" "$folder"
sudo "$python" -m pip install --quiet --disable-pip-version-check --no-index --find-links "$folder/wheels" \
  --require-hashes --requirement "$folder/wheels/requirements.txt"
