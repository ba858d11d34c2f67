"""Shared by all tests. That this file is here puts its folder on the import path."""
