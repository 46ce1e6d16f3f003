"""Declared data: tables from files, names and libraries, and their splits."""
