"""Where the platform's servers are, from the environment."""

import os

BROKER_URL = os.environ.get("CELERY_BROKER_URL", "redis://127.0.0.1:6379/0")
RESULT_BACKEND = os.environ.get("CELERY_RESULT_BACKEND", "redis://127.0.0.1:6379/1")

S3_ENDPOINT = os.environ.get("S3_ENDPOINT", "127.0.0.1:9000")
S3_ACCESS_KEY = os.environ.get("S3_ACCESS_KEY", "")
S3_SECRET_KEY = os.environ.get("S3_SECRET_KEY", "")
S3_BUCKET = os.environ.get("S3_BUCKET", "videos")

# Part of every temp file's suffix, so that one installation's files can be told from another's on the same machine.
INSTANCE = os.environ.get("INSTANCE", "local")
