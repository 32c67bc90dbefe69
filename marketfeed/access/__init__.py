"""Who may come in, from where, and with which token."""

__all__: list[str] = []
