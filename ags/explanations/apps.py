"""App configuration of `ags.explanations`."""

from django.apps import AppConfig


class ExplanationsConfig(AppConfig):
    name = "ags.explanations"
    label = "ags_explanations"
    verbose_name = "Explanations"
