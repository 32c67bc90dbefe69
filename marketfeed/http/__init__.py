"""Plain requests: what stands before a WebSocket, and what is answered without one."""
