#!/bin/sh
# At the first start of PostgreSQL: the roles of API, workers and beats, with their passwords. What each may do is
# given by `upbeat grant`, which the service `migrate` of compose.yaml runs.
set -eu
for role in api worker beat; do
    psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
        --set=role="upbeat_$role" --set=password="$(cat "${SECRETS:-/run/secrets}/postgres_${role}_password")" <<'SQL'
CREATE ROLE :"role" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'password';
SQL
done
