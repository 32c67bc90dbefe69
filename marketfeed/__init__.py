"""Live market data from Redis to every browser, phone and bot that watches, over WebSocket."""

__version__ = "0.1.0"
__all__ = ["__version__"]
