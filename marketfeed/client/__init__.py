"""One connected client: its bytes, its conversation, its outbox, and the register of all of them."""

__all__: list[str] = []
