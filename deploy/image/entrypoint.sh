#!/bin/sh
# serve, migrate and gateway are roles of a mesh; everything else is the `plexus` command.
set -eu

# Secrets may come as files that are named like the variable they hold.
for file in "${SECRETS_DIR:-/run/secrets}"/PLEXUS_*; do
  if [ -f "$file" ]; then
    name=${file##*/}
    export "$name=$(cat "$file")"
  fi
done

# A container's host name is its own, and a pod's is the pod's name.
export PLEXUS_INSTANCE="${PLEXUS_INSTANCE:-$(uname -n)}"

case ${1:-} in
  serve | migrate | gateway) exec python -m services "$@" ;;
  *) exec plexus "$@" ;;
esac
