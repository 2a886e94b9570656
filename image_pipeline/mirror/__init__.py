"""Copies of originals and chosen variants on an SFTP server, such as a NAS."""
