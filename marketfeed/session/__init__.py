"""A conversation with one client: requests in, replies and changes of subscription out."""

__all__: list[str] = []
