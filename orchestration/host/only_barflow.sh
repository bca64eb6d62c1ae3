#!/usr/bin/env bash
# The commands that Airflow's SSH key may run on the host: `barflow ingest …` and `barflow backfill …`, nothing else.
set -euf
read -ra words <<<"${SSH_ORIGINAL_COMMAND:-}"
case "${words[0]:-} ${words[1]:-}" in
  "barflow ingest" | "barflow backfill") exec /usr/local/bin/barflow "${words[@]:1}" ;;
esac
echo "this key may run \`barflow ingest\` and \`barflow backfill\` only" >&2
exit 2
