"""Losses as (sum, weight): one family a file."""
