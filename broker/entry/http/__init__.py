"""Requests that arrive over HTTP: CRLs, certificates' status, update files. Nothing is changed."""
