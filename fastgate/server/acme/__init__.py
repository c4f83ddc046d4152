"""Certificates from an ACME directory (RFC 8555): accounts, orders, storage, renewal."""
