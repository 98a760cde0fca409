"""The TLS door: an endpoint for clients whose ZeroMQ library has no CURVE."""
