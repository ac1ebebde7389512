"""The Django site: a page that captions photos, and an API. See README.md."""
