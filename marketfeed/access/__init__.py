"""Who may come in, from where, and with which token."""
