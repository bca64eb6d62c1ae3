#!/usr/bin/env bash
# Makes an Amazon Linux 2023 instance the host: data volume, swap, log shipping. May be run again at any time.
#
# Needs BARFLOW_ENV, BARFLOW_RELEASE (s3:// address of the published programs, with a slash at its end),
# BARFLOW_HOST_LOG (the CloudWatch log group) and AWS_DEFAULT_REGION.
set -euo pipefail

: "${BARFLOW_ENV:?}" "${BARFLOW_RELEASE:?}" "${BARFLOW_HOST_LOG:?}" "${AWS_DEFAULT_REGION:?}"
here=$(cd "$(dirname "$0")" && pwd)
device=${BARFLOW_DATA_DEVICE:-/dev/xvdb}
data=/var/lib/barflow

say() { printf 'barflow: %s\n' "$*"; }

mount_data_volume() {
  mountpoint -q "$data" && return
  blkid "$device" >/dev/null || mkfs.xfs -q -L barflow "$device"
  mkdir -p "$data"
  grep -q '^LABEL=barflow ' /etc/fstab || echo "LABEL=barflow $data xfs defaults,noatime,nofail 0 2" >>/etc/fstab
  mount "$data"
}

# Airflow's processes fit a small instance's memory only just; what sleeps may lie on disk.
add_swap() {
  swapon --show --noheadings | grep -q "$data/swap" && return
  if [ ! -f "$data/swap" ]; then
    dd if=/dev/zero of="$data/swap" bs=1M count=4096 status=none
    chmod 600 "$data/swap"
    mkswap --quiet "$data/swap"
  fi
  swapon "$data/swap"
  grep -q "^$data/swap " /etc/fstab || echo "$data/swap none swap defaults,nofail 0 0" >>/etc/fstab
}

ship_logs() {
  dnf install -y --quiet amazon-cloudwatch-agent
  local agent=/opt/aws/amazon-cloudwatch-agent
  sed "s|LOG_GROUP|$BARFLOW_HOST_LOG|" "$here/cloudwatch-agent.json" >"$agent/etc/barflow.json"
  "$agent/bin/amazon-cloudwatch-agent-ctl" -a fetch-config -m ec2 -s -c "file:$agent/etc/barflow.json" >/dev/null
}

say "preparing the host of $BARFLOW_ENV from $BARFLOW_RELEASE"
mount_data_volume
add_swap
ship_logs
say "ready"
