"""`remac verify`: every runtime encodes and decodes, and what differs is named."""
