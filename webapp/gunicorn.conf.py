"""Settings of gunicorn: `gunicorn -c webapp/gunicorn.conf.py webapp.wsgi`."""

import os

bind = f"{os.environ.get('HOST', '127.0.0.1')}:{os.environ.get('PORT', '8000')}"
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))
worker_class = "gthread"
# More threads than places in the queue: those that get none answer 429 at once.
threads = int(os.environ.get("WEBAPP_QUEUE", "32")) + 8
timeout = 60
keepalive = 5
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: PTH112, gunicorn has not imported pathlib
control_socket_disable = True
loglevel = "warning"


def post_worker_init(worker):
    """Load the model before the first request."""
    from webapp.captioning.service import service

    service()
    shown = bind.replace("0.0.0.0", "127.0.0.1")
    print(f"Captions at http://{shown}", flush=True)
