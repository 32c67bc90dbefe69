"""Subscriptions and fan-out: what comes from the source, on its way to everybody who watches."""
