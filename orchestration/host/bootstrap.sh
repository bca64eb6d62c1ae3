#!/usr/bin/env bash
# Makes an Amazon Linux 2023 instance the host of Airflow and the page, out of the release that this script lies in.
# May be run again at any time: what is as it should be is left alone, and services restart only when something changed.
#
# Needs BARFLOW_ENV, BARFLOW_HOST_LOG (the CloudWatch log group) and AWS_DEFAULT_REGION. Under BARFLOW_ROOT, a folder,
# tests let it work.
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

say() { printf 'barflow: %s\n' "$*"; }

put() { # put TARGET MODE <CONTENT: writes it where it differs
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

# Airflow's processes fit a small instance's memory only just; what sleeps may lie on disk.
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

# A user with a home on the data volume: add_user NAME SHELL
add_user() {
  getent passwd "$1" >/dev/null || useradd --system --no-create-home --home-dir "$data/$1" --shell "$2" "$1"
  [ -d "$data/$1" ] || install -d -m 700 "$data/$1"
  [ "$(stat -c %U "$data/$1")" = "$1" ] || chown "$1:$1" "$data/$1"
}

# The lock's packages, each checked by its hash, in an environment named by the lock: another lock is another folder.
install_python_packages() {
  local lock=$here/requirements.txt digest venv
  digest=$(sha256sum "$lock" | cut -c1-16)
  venv=$opt/venvs/$digest
  if [ ! -e "$venv/.complete" ]; then
    say "installing the packages of lock $digest"
    rm -rf "$venv"
    "$python" -m venv "$venv"
    # uv as the lock has it, by the pip that comes with Python; uv then does the rest.
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
  # The library and the page, as released with this script.
  put "$venv/lib/$python/site-packages/barflow.pth" 644 <<<"$release"
  # The page is a room of its own: the command finds it by this entry point.
  put "$venv/lib/$python/site-packages/barflow.dist-info/entry_points.txt" 644 <<END
[barflow.commands]
dashboard = dashboard.commands:dashboard
END
  put "$venv/bin/barflow" 755 <<END
#!$opt/venv/bin/python
from barflow.cli.main import main

main()
END
}

install_files() {
  local unit
  for command in barflow airflow; do put "$root/usr/local/bin/$command" 755 <"$here/command.sh"; done
  put "$root/etc/barflow/host.env" 644 <<<"BARFLOW_ENV='$BARFLOW_ENV'
AWS_DEFAULT_REGION='$AWS_DEFAULT_REGION'"
  for unit in "$here"/units/*; do put "$root/etc/systemd/system/${unit##*/}" 644 <"$unit"; done
  for prefix in airflow- barflow-; do
    put "$root/etc/systemd/system/$prefix.service.d/hardened.conf" 644 <"$here/hardened.conf"
  done
}

# Only what is on this machine may speak SSH with it.
close_ssh() {
  local before=$changed
  put "$root/etc/ssh/sshd_config.d/10-barflow.conf" 600 <"$here/sshd.conf"
  [ "$changed" = "$before" ] || systemctl try-restart sshd.service
}

# Airflow speaks SSH with nobody whose key it does not know, and this machine's are new with each machine.
introduce_host() {
  local keys
  keys=$(sed 's/^/127.0.0.1 /' "$root"/etc/ssh/ssh_host_*_key.pub)
  put "$data/airflow/.ssh/known_hosts" 644 <<<"$keys"
}

# Services write to the journal, rsyslog from there into /var/log/messages, which the agent ships and logrotate turns.
ship_logs() {
  local agent=$root/opt/aws/amazon-cloudwatch-agent before=$changed
  put "$agent/etc/barflow.json" 644 < <(sed "s|LOG_GROUP|$BARFLOW_HOST_LOG|" "$here/cloudwatch-agent.json")
  systemctl enable --now --quiet rsyslog.service
  [ "$changed" = "$before" ] || "$agent/bin/amazon-cloudwatch-agent-ctl" -a fetch-config -m ec2 -s -c "file:$agent/etc/barflow.json" >/dev/null
}

start_services() {
  local units=()
  for unit in "$here"/units/*; do
    # What a timer starts is not started by itself.
    [ -e "${unit%.service}.timer" ] && [ "${unit##*.}" = service ] || units+=("${unit##*/}")
  done
  if [ -n "$changed" ]; then
    say "changed:$changed"
    systemctl daemon-reload
    systemctl restart barflow-settings.service
  fi
  systemctl enable --now --quiet "${units[@]}"
}

say "preparing the host of $BARFLOW_ENV from $release"
mount_data_volume
add_swap
install_system_packages
ship_logs
add_user airflow /sbin/nologin
add_user barflow /bin/bash
install_python_packages
install_files
close_ssh
introduce_host
start_services
say "waiting for Airflow"
(
  set -a
  # shellcheck source=/dev/null
  . "$root/run/barflow/barflow.env"
  exec "$opt/venv/bin/python" -I "$here/check_health.py" --wait 600
)
say "ready"
