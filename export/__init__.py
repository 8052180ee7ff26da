"""Exporters: integer network file to the artefacts that boards and ground stations load."""
