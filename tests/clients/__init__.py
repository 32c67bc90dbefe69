"""Clients that other people have written for Binance, unmodified, against the daemon: only addresses are changed."""
