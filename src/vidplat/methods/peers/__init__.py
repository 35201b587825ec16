"""Caches of others that plans may choose: passes are left out while little changes."""
