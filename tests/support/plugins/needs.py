"""Needs what nobody has."""

import surely_not_installed  # type: ignore[import-not-found]  # noqa: F401
