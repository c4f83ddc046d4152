"""What the plugins that authenticate share. No part of the plugin API: it may change with any version."""
