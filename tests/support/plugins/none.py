"""No plugin in here."""

from fastgate.plugins import Plugin as Plugin
