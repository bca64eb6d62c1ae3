#!/usr/bin/env bash
# Set up an Amazon Linux 2023 instance as the host of Airflow and the page, from the release that contains this script.
# You can run it again at any time: it changes only what differs, and restarts the services only after a change.
#
# Needs BARFLOW_ENV, BARFLOW_HOST_LOG (the CloudWatch log group) and AWS_DEFAULT_REGION. Tests set BARFLOW_ROOT, the
# folder that is the root of their file system.
set -euo pipefail

: "${BARFLOW_ENV:?}" "${BARFLOW_HOST_LOG:?}" "${AWS_DEFAULT_REGION:?}"
root=${BARFLOW_ROOT:-}
here=$(cd "$(dirname "$0")" && pwd)
release=$(cd "$here/../.." && pwd)
device=${BARFLOW_DATA_DEVICE:-/dev/xvdb}
data=$root/var/lib/barflow
opt=$root/opt/barflow
python=python3.11
changed=""

log() { printf 'barflow: %s\n' "$*"; }

# write_file TARGET MODE <CONTENT: write the file if its content differs
write_file() {
  local new
  new=$(mktemp)
  cat >"$new"
  if ! cmp -s "$new" "$1"; then
    install -D -m "$2" "$new" "$1"
    changed="$changed ${1#"$root"}"
  fi
  rm -f "$new"
}

mount_data_volume() {
  mountpoint -q "$data" && return
  blkid "$device" >/dev/null || mkfs.xfs -q -L barflow "$device"
  mkdir -p "$data"
  grep -q '^LABEL=barflow ' "$root/etc/fstab" || echo "LABEL=barflow $data xfs defaults,noatime,nofail 0 2" >>"$root/etc/fstab"
  mount "$data"
}

# The memory of a small instance is barely enough for Airflow's processes; idle ones can be swapped out.
add_swap() {
  swapon --show --noheadings | grep -q "$data/swap" && return
  if [ ! -f "$data/swap" ]; then
    dd if=/dev/zero of="$data/swap" bs=1M count=4096 status=none
    chmod 600 "$data/swap"
    mkswap --quiet "$data/swap"
  fi
  swapon "$data/swap"
  grep -q "^$data/swap " "$root/etc/fstab" || echo "$data/swap none swap defaults,nofail 0 0" >>"$root/etc/fstab"
}

install_system_packages() {
  local packages=("$python" "$python-pip" rsyslog amazon-cloudwatch-agent)
  rpm -q --quiet "${packages[@]}" || dnf install -y --quiet "${packages[@]}"
}

# add_user NAME SHELL: add a user with a home folder on the data volume
add_user() {
  getent passwd "$1" >/dev/null || useradd --system --no-create-home --home-dir "$data/$1" --shell "$2" "$1"
  [ -d "$data/$1" ] || install -d -m 700 "$data/$1"
  [ "$(stat -c %U "$data/$1")" = "$1" ] || chown "$1:$1" "$data/$1"
}

# Install the locked packages, each verified by its hash. The folder of the environment is named after the lock's digest.
install_python_packages() {
  local lock=$here/requirements.txt digest venv
  digest=$(sha256sum "$lock" | cut -c1-16)
  venv=$opt/venvs/$digest
  if [ ! -e "$venv/.complete" ]; then
    log "installing the packages of lock $digest"
    rm -rf "$venv"
    "$python" -m venv "$venv"
    # Python's own pip installs uv in the locked version; uv installs the rest.
    sed -n '/^uv==/,/[^\\]$/p' "$lock" >"$venv/uv.txt"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$venv/uv.txt"
    UV_CACHE_DIR=${UV_CACHE_DIR:-$opt/cache} "$venv/bin/uv" pip install --quiet --compile-bytecode \
      --python "$venv/bin/python" --require-hashes -r "$lock"
    rm -rf "$opt/cache"
    touch "$venv/.complete"
  fi
  if [ "$(readlink "$opt/venv" || true)" != "$venv" ]; then
    ln -sfn "$venv" "$opt/venv"
    changed="$changed $venv"
  fi
  # The library and the page are those of the release.
  write_file "$venv/lib/$python/site-packages/barflow.pth" 644 <<<"$release"
  # The page is a room of its own: the command finds it by this entry point.
  write_file "$venv/lib/$python/site-packages/barflow.dist-info/entry_points.txt" 644 <<END
[barflow.commands]
dashboard = dashboard.commands:dashboard
END
  write_file "$venv/bin/barflow" 755 <<END
#!$opt/venv/bin/python
from barflow.cli.main import main

main()
END
}

install_files() {
  local unit
  for command in barflow airflow; do write_file "$root/usr/local/bin/$command" 755 <"$here/command.sh"; done
  write_file "$root/etc/barflow/host.env" 644 <<<"BARFLOW_ENV='$BARFLOW_ENV'
AWS_DEFAULT_REGION='$AWS_DEFAULT_REGION'"
  for unit in "$here"/units/*; do write_file "$root/etc/systemd/system/${unit##*/}" 644 <"$unit"; done
  for prefix in airflow- barflow-; do
    write_file "$root/etc/systemd/system/$prefix.service.d/hardened.conf" 644 <"$here/hardened.conf"
  done
}

# Accept SSH from this host only.
restrict_ssh() {
  local before=$changed
  write_file "$root/etc/ssh/sshd_config.d/10-barflow.conf" 600 <"$here/sshd.conf"
  [ "$changed" = "$before" ] || systemctl try-restart sshd.service
}

# Airflow accepts only host keys that it knows, and each new host has new keys.
write_known_hosts() {
  local keys
  keys=$(sed 's/^/127.0.0.1 /' "$root"/etc/ssh/ssh_host_*_key.pub)
  write_file "$data/airflow/.ssh/known_hosts" 644 <<<"$keys"
}

# Services log to the journal. rsyslog copies it to /var/log/messages, which the agent ships and logrotate rotates.
ship_logs() {
  local agent=$root/opt/aws/amazon-cloudwatch-agent before=$changed
  write_file "$agent/etc/barflow.json" 644 < <(sed "s|LOG_GROUP|$BARFLOW_HOST_LOG|" "$here/cloudwatch-agent.json")
  systemctl enable --now --quiet rsyslog.service
  [ "$changed" = "$before" ] || "$agent/bin/amazon-cloudwatch-agent-ctl" -a fetch-config -m ec2 -s -c "file:$agent/etc/barflow.json" >/dev/null
}

start_services() {
  local units=()
  for unit in "$here"/units/*; do
    # A timer starts its service, so the service itself is not enabled.
    [ -e "${unit%.service}.timer" ] && [ "${unit##*.}" = service ] || units+=("${unit##*/}")
  done
  if [ -n "$changed" ]; then
    log "changed:$changed"
    systemctl daemon-reload
    systemctl restart barflow-settings.service
  fi
  systemctl enable --now --quiet "${units[@]}"
}

log "setting up the host of $BARFLOW_ENV from $release"
mount_data_volume
add_swap
install_system_packages
ship_logs
add_user airflow /sbin/nologin
add_user barflow /bin/bash
install_python_packages
install_files
restrict_ssh
write_known_hosts
start_services
log "waiting for Airflow"
(
  set -a
  # shellcheck source=/dev/null
  . "$root/run/barflow/barflow.env"
  exec "$opt/venv/bin/python" -I "$here/check_health.py" --wait 600
)
log "ready"
