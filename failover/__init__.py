"""failover: a fail-over cluster manager for virtual servers."""

__version__ = "0.1.0"
