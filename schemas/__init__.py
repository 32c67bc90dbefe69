"""The wire for programs: `docs/asyncapi.yaml` and `docs/openapi.yaml`, made of Structs by `make schemas`.

It is no part of what is installed. The daemon writes much of this by hand, for speed; the tests hold what it sends
against these Structs.
"""
