#!/bin/sh
# Makes the secrets of compose.yaml, once, in the folder secrets/ beside this file: what is there already is kept, so
# that it may be repeated. For servers of your own, put their addresses into *_database_url and *_redis_url.
#
# The files are readable by all inside the folder, which is closed to all but its owner: containers read them as users
# of their own.
set -eu
cd "$(dirname "$0")"
mkdir -p "${SECRETS:=secrets}"
chmod 700 "$SECRETS"

# Adds the file $1, with what standard input has, unless it is there.
put() {
    if [ -s "$SECRETS/$1" ]; then cat >/dev/null; else cat >"$SECRETS/$1"; chmod 644 "$SECRETS/$1"; echo "made $1"; fi
}
# Letters and digits, so that they need no quoting in an address.
password() { LC_ALL=C tr -dc 'A-Za-z0-9' </dev/urandom | head -c 40; }
said() { cat "$SECRETS/$1"; }

password | put postgres_password
password | put metrics_token
head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n' | put secret_keys
printf 'postgresql://postgres:%s@postgres:5432/postgres' "$(said postgres_password)" | put owner_database_url
for role in api worker beat; do
    password | put "postgres_${role}_password"
    printf 'postgresql://upbeat_%s:%s@postgres:5432/postgres' "$role" "$(said "postgres_${role}_password")" |
        put "${role}_database_url"
    printf 'redis://upbeat_%s:%s@redis:6379/0' "$role" "$(password)" | put "${role}_redis_url"
done

# The users of redis/users.acl with their passwords, and nobody else: anew each time, for a release may change what they
# may do.
{
    echo 'user default off'
    for role in api worker beat; do
        secret=$(said "${role}_redis_url" | sed 's|^redis://[^:]*:||; s|@.*||')
        sed -n "s|^user upbeat_${role} on resetpass |&>${secret} |p" redis/users.acl
    done
} >"$SECRETS/redis_users"
chmod 644 "$SECRETS/redis_users"
