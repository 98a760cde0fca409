"""The figures of a mirror for its actor's report, taken from its report to the controller. Pure."""

from ...transport.protocol.mirrors import MirrorReport


def gauges_of(report: MirrorReport) -> dict[str, int]:
    lags = [lag for topic in report.topics for lag in topic.partitions]
    return {
        "mirror_partitions": len(lags),
        "mirror_lag_offsets": sum(max(0, lag.source_high_watermark - lag.log_end_offset) for lag in lags),
        "mirror_lag_bytes": sum(lag.lag_bytes for lag in lags),
        "mirror_lag_ms": max((lag.behind_ms for lag in lags), default=0),
        "mirror_copied_bytes": report.copied_bytes,
        "mirror_skipped_offsets": sum(lag.skipped for lag in lags),
        "mirror_faulted_topics": sum(topic.state == "faulted" for topic in report.topics),
        "mirror_unreachable": int(report.state == "unreachable"),
    }
