"""The bucket: one class over boto3, and the layout of its keys."""
