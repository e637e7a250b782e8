#!/usr/bin/env bash
# Start the MLflow server that a cluster's jobs record in, unless it is there. On loopback: the driver of
# a job, which alone writes to MLflow, runs on the head as well.
#
#   UNFUSED_MLFLOW_DATABASE   sqlite:///$HOME/mlflow.db by default; postgresql+psycopg2://user@host/mlflow
#   UNFUSED_MLFLOW_ARTIFACTS  $HOME/mlartifacts by default; s3://bucket/mlartifacts
#   UNFUSED_MLFLOW_PORT       5000
set -euo pipefail
port=${UNFUSED_MLFLOW_PORT:-5000}
health() { python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:$port/health', timeout=2)" 2> /dev/null; }
health && exit 0
nohup mlflow server --host 127.0.0.1 --port "$port" --workers 1 \
    --backend-store-uri "${UNFUSED_MLFLOW_DATABASE:-sqlite:///$HOME/mlflow.db}" \
    --artifacts-destination "${UNFUSED_MLFLOW_ARTIFACTS:-$HOME/mlartifacts}" \
    > "$HOME/mlflow-server.log" 2>&1 < /dev/null &
for _ in $(seq 120); do
    health && exit 0
    sleep 1
done
echo "The MLflow server did not start; see $HOME/mlflow-server.log." >&2
exit 1
