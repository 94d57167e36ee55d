# ClickHouse's engine (chdb) behind clickhouse_http.py. Sourced.
# shellcheck shell=bash disable=SC2153

CLICKHOUSE_SOFTWARE=chdb-4.4.0

clickhouse_address() { echo "127.0.0.1:$CLICKHOUSE_PORT"; }

# chdb-core is the engine, ClickHouse 26.9; chdb alone would take a newer one.
clickhouse_install() { cached "$CLICKHOUSE_SOFTWARE" python_env chdb==4.4.0 chdb-core==26.9.0; }

clickhouse_start() {
    mkdir -p "$STATE/clickhouse"
    start clickhouse "$CACHE/$CLICKHOUSE_SOFTWARE/bin/python" "$HERE/clickhouse_http.py" \
        --port "$CLICKHOUSE_PORT" --data "$STATE/clickhouse"
}

# A statement, not /ping: whatever else listens there would not take our password.
clickhouse_answers() {
    http GET "$CLICKHOUSE_PORT" '/?query=SELECT+1' "X-ClickHouse-Key: $TIDEMILL_CLICKHOUSE_PASSWORD"
}
