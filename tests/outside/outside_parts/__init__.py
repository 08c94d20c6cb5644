"""Parts of somebody else's for seg_plugins."""
