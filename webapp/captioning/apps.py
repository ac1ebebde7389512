"""The app's name."""

from django.apps import AppConfig


class CaptioningConfig(AppConfig):
    name = "webapp.captioning"
