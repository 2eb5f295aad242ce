# One image for the API, the worker and beat; the command chooses:
#   docker run … upbeat                                            the API
#   docker run … upbeat celery -A app.worker worker                a worker
#   docker run … upbeat celery -A app.worker beat                  a beat
# DATABASE_URL and REDIS_URL name the servers, as variables or as files of these names in /run/secrets.
# `upbeat migrate` brings the database up to date. deploy/compose.yaml puts all of it together.

FROM python:3.11-slim AS packages
COPY requirements/server.txt /tmp/server.txt
RUN python -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /tmp/server.txt

FROM python:3.11-slim
RUN groupadd --system --gid 10001 upbeat \
 && useradd --system --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin upbeat
COPY --from=packages /opt/venv /opt/venv
WORKDIR /srv/upbeat
COPY alembic.ini ./
COPY migrations ./migrations
COPY app ./app
COPY sdk/src ./sdk/src
COPY deploy/upbeat /usr/local/bin/upbeat
# The file system may be read-only, and a start must not compile everything anew.
RUN /opt/venv/bin/python -m compileall -q app sdk/src migrations
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/srv/upbeat \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    UPBEAT_LOG_FORMAT=json
# By its number, so that a cluster can tell that it is not root.
USER 10001:10001
EXPOSE 8000
# Of the API; compose files and charts give workers and beats their own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ.get('UPBEAT_PORT', '8000')}/livez\", timeout=4)"]
CMD ["sh", "-c", "exec uvicorn app.main:app --host 0.0.0.0 --port ${UPBEAT_PORT:-8000} --timeout-graceful-shutdown ${UPBEAT_GRACEFUL_SHUTDOWN:-5}"]
