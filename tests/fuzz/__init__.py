"""Fuzz targets: `python -m tests.fuzz TARGET [-max_total_time=SECONDS] [FOLDER ...]`.

atheris changes bytes so that they reach code that none reached before. It is not needed otherwise: pip install atheris.
"""
