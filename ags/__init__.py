"""The Authentication Gateway Service."""

__version__ = "0.2.0"
