"""Readers of scene folders, one module a layout."""
