"""Every client library against every scenario of clients/conformance/, and against a real daemon with faults."""
