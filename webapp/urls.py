"""Every address of the site."""

from django.urls import path

from webapp.captioning import views
from webapp.captioning.api import api

urlpatterns = [
    path("", views.index, name="index"),
    path("healthz", views.healthz, name="healthz"),
    path("api/", api.urls),
]
