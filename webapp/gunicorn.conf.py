"""Settings of gunicorn: `gunicorn -c webapp/gunicorn.conf.py webapp.wsgi`."""

import os
import runpy
import socket
import sys
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

try:
    # Not imported: gunicorn's workers would inherit the module, and a reload would not read it again.
    site = runpy.run_path(str(Path(__file__).with_name("settings.py")))
except ImproperlyConfigured as error:
    sys.exit(f"Error: {error}")

bind = f"{os.environ.get('HOST', '127.0.0.1')}:{os.environ.get('PORT', '8000')}"
worker_class = "gthread"
# More threads than places in the queue: those that get none answer 429 at once.
threads = site["QUEUE_SIZE"] + 8
timeout = 60
keepalive = 5
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None
control_socket_disable = True
loglevel = "warning"


def on_starting(server):
    """End with one sentence where the port is taken; gunicorn would try six times and print a page."""
    if {"GUNICORN_FD", "LISTEN_FDS"} & os.environ.keys():
        return  # another process has opened it for this one
    host, _, port = bind.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host.strip("[]"), int(port)), family=family).close()
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (")[0]  # Python adds the address
        sys.exit(f"Error: cannot listen on {bind} ({reason}): choose another port, such as PORT=8001.")


def post_worker_init(worker):
    """Load the model before the first request. Without one, the server says so to everyone who asks."""
    from webapp.captioning.service import NoModel, service

    try:
        service()
    except NoModel as error:
        print(f"Error: {error}", file=sys.stderr, flush=True)
    shown = bind.replace("0.0.0.0", "127.0.0.1")
    print(f"Captions at http://{shown}", flush=True)
