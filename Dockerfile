# The page and the API. See webapp/README.md.
FROM python:3.12-slim

# MALLOC_ARENA_MAX saves 40 MB: glibc otherwise keeps freed memory for each thread.
ENV MALLOC_ARENA_MAX=2 \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 HOST=0.0.0.0 PORT=8000
WORKDIR /app
COPY requirements-caption.txt requirements-web.txt ./
RUN pip install --requirement requirements-web.txt
COPY caption_generator caption_generator
COPY models models
COPY examples examples
COPY webapp webapp
# Compiled once here, because the file system is read-only later.
RUN WEBAPP_SECRET_KEY=unused python webapp/manage.py collectstatic --noinput --verbosity 0 \
    && python -m compileall -q caption_generator webapp \
    && useradd --system --no-create-home --uid 10001 captions
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['PORT']}/healthz\", timeout=4)"]
CMD ["gunicorn", "--config", "webapp/gunicorn.conf.py", "webapp.wsgi"]
