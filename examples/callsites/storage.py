"""The platform's object storage."""

from minio import Minio

from examples.callsites import settings


def connect() -> Minio:
    """Return a client of the object storage."""
    return Minio(
        settings.S3_ENDPOINT,
        access_key=settings.S3_ACCESS_KEY,
        secret_key=settings.S3_SECRET_KEY,
        secure=False,
        region="us-east-1",  # saves the client from asking for it, which not every server answers as it expects
    )


def ensure_bucket(client: Minio, bucket: str) -> None:
    """Create the bucket unless it's there."""
    if not client.bucket_exists(bucket):
        client.make_bucket(bucket)
