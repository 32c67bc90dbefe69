"""The candle service: trades in, candles and statistics of 24 hours out, for all daemons (docs/market-data.md)."""
