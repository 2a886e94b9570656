"""A real caching edge: nginx with proxy_cache in front of an S3 bucket."""

import http.client
import ipaddress
import os
import shutil
import ssl
import subprocess
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from image_pipeline_tests.ports import free_port

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

_CONFIG = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  proxy_cache_path {folder}/cache keys_zone=edge:4m max_size=500m inactive=1h use_temp_path=off;
  map $upstream_cache_status $answer {{
    HIT "Hit from cloudfront"; STALE "Hit from cloudfront"; default "Miss from cloudfront";
  }}
  upstream origin {{ server {origin}; keepalive 16; }}
  server {{
    listen 127.0.0.1:{port}{tls};
    location /elsewhere {{ return 302 http://{origin}/; }}
    location /broken {{ return 503; }}
    # Like a distribution that asks for signatures: none is checked, but there has to be one, and
    # neither the origin nor the cache key sees it.
    location /private/ {{
      if ($arg_signature = "") {{ return 403; }}
      set $args ""; rewrite ^/private(/.*)$ $1 last;
    }}
    location / {{
      proxy_pass http://origin/{bucket}/; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_set_header Host {origin};
      proxy_cache edge; proxy_cache_key $uri; proxy_cache_lock on;
      proxy_cache_use_stale error timeout http_500 http_502 http_503;
      proxy_connect_timeout 2s; add_header X-Cache $answer always;
    }}
  }}
}}
"""


class Edge:
    """nginx on a free port, with its cache in ``folder``; a context manager.

    With ``tls`` it speaks HTTPS and HTTP/2; who asks has to trust ``authorities``, a file.
    """

    def __init__(self, folder, origin_url, bucket, tls=False):
        self.folder = folder
        self.authorities = folder / "certificate.pem" if tls else None
        self.origin = urlsplit(origin_url).netloc
        self.bucket = bucket
        self.port = free_port()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._process = None

    def __enter__(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        tls = _tls(self.authorities, self.folder / "key.pem") if self.authorities else ""
        config = self.folder / "nginx.conf"
        config.write_text(
            _CONFIG.format(
                folder=self.folder, origin=self.origin, bucket=self.bucket, port=self.port, tls=tls
            )
        )
        self._process = subprocess.Popen(
            [NGINX, "-p", str(self.folder), "-c", str(config)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._wait()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """End it; it answers nobody any more."""
        self._process.terminate()
        self._process.wait(10)

    def _wait(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError((self.folder / "error.log").read_text())
            try:
                connection = self._connection()
                connection.request("GET", "/broken")
                assert connection.getresponse().status == 503
                connection.close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise TimeoutError("nginx did not start")

    def _connection(self):
        if self.authorities is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        context = ssl.create_default_context(cafile=self.authorities)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=5, context=context)


def _tls(certificate, key):
    """Write a certificate for this machine; what makes nginx's listen use it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "edge")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    certificate.write_bytes(made.public_bytes(pem))
    secret = serialization.NoEncryption()
    key.write_bytes(private.private_bytes(pem, serialization.PrivateFormat.PKCS8, secret))
    return f" ssl http2; ssl_certificate {certificate}; ssl_certificate_key {key}"
