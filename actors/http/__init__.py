"""The actor that serves metrics, probes and the bridge over HTTP. It keeps nothing that a client relies on.

process.py      sockets, without decisions
machine.py      routes
connections.py  requests and answers of each connection, limits and deadlines
bridge.py       topics and groups for HTTP clients: operations.py, openapi.py, problems.py
looks.py        gathers the contents of pages: the actors' reports, the age of unread records
lag.py          how far groups are behind
totals.py       counters of all actors, summed over their restarts
families.py     the metrics: name, type, labels, meaning
gauges.py       the present state, as metrics
kafka_names.py  the same under the names of kafka_exporter
exposition.py   the text format of Prometheus
health.py       answers to probes
"""
