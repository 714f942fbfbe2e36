#!/bin/sh
# Make what compose.yaml needs and nobody should choose by hand: deploy/secrets/ and deploy/.env.
# What is there already stays as it is, so running it again is safe.
set -eu
umask 077
cd "$(dirname "$0")"
mkdir -p secrets

password() { openssl rand -hex 24; }

# keep <name>: write standard input to a secret, all of it or nothing.
keep() {
  cat > "secrets/.$1" && mv "secrets/.$1" "secrets/$1"
}

if [ ! -e secrets/master.key ]; then
  openssl rand 32 | keep master.key
  echo "made secrets/master.key: keep a copy elsewhere, the database cannot be read without it"
fi
if [ ! -e secrets/postgres_admin ]; then
  password | keep postgres_admin
fi
for role in owner:plexus_owner:PLEXUS_DATABASE_OWNER_URL plain:plexus:PLEXUS_DATABASE_URL; do
  name=${role%%:*} variable=${role##*:}
  user=${role#*:} user=${user%:*}
  if [ ! -e "secrets/postgres_$name" ]; then
    password | keep "postgres_$name"
  fi
  printf 'postgresql://%s:%s@postgres:5432/plexus' "$user" "$(cat "secrets/postgres_$name")" |
    keep "$variable"
done
if [ ! -e secrets/redis.conf ]; then
  fresh=$(password)
  # News and counters only: nothing in it outlives it.
  printf 'requirepass %s\nsave ""\nappendonly no\nmaxmemory 192mb\nmaxmemory-policy noeviction\n' \
    "$fresh" | keep redis.conf
  printf 'redis://:%s@redis:6379/0' "$fresh" | keep PLEXUS_REDIS_URL
fi
if [ ! -e secrets/qdrant.yaml ]; then
  fresh=$(password)
  printf 'service:\n  api_key: %s\nstorage:\n  storage_path: %s\n  snapshots_path: %s\n' \
    "$fresh" /var/tmp/storage /var/tmp/snapshots | keep qdrant.yaml
  printf '%s' "$fresh" | keep PLEXUS_QDRANT_KEY
fi
if [ ! -e secrets/grafana_admin ]; then
  password | keep grafana_admin
fi
# The key of the language model's server; empty until you write one.
if [ ! -e secrets/PLEXUS_LLM_KEY ]; then
  : | keep PLEXUS_LLM_KEY
fi
# Containers run as you: the secrets are readable by nobody else. Never as root, though.
uid=$(id -u) gid=$(id -g)
if [ "$uid" = 0 ]; then
  uid=10001 gid=10001
  chown -R "$uid:$gid" secrets
fi
if [ ! -e .env ]; then
  printf 'OWNER_UID=%s\nOWNER_GID=%s\n' "$uid" "$gid" > .env
fi
