#!/usr/bin/env bash
# The commands that Airflow's SSH key may run on the host: `barflow ingest …`, `barflow backfill …` and
# `barflow actions refresh …`, nothing else.
set -euf
read -ra words <<<"${SSH_ORIGINAL_COMMAND:-}"
case "${words[*]:0:3} " in
  "barflow ingest "* | "barflow backfill "* | "barflow actions refresh ") exec /usr/local/bin/barflow "${words[@]:1}" ;;
esac
echo "this key may run \`barflow ingest\`, \`barflow backfill\` and \`barflow actions refresh\` only" >&2
exit 2
