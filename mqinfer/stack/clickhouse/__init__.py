"""The embedded ClickHouse: chdb's engine behind ClickHouse's HTTP interface, in its own process.

`python -m mqinfer.stack.clickhouse` is that process; `server` starts it.
"""
