# S3 by moto's server: in memory, with a true conditional PUT. Sourced.
# shellcheck shell=bash disable=SC2153

S3_SOFTWARE=moto-5.2.5
S3_BUCKET=lake

s3_address() { echo "127.0.0.1:$S3_PORT"; }

# moto's own extra [server] wants what every service of AWS needs, about 140 MB more.
s3_install() { cached "$S3_SOFTWARE" python_env 'moto[s3]==5.2.5' flask flask-cors; }

s3_start() {
    # At its usual level the web server writes a line a request.
    start s3 "$CACHE/$S3_SOFTWARE/bin/python" -c '
import logging, sys
from moto.server import main
logging.getLogger("werkzeug").setLevel(logging.WARNING)
main(["-H", "127.0.0.1", "-p", sys.argv[1]])' "$S3_PORT"
}

# In us-east-1 making a bucket that one owns already succeeds.
s3_answers() { http PUT "$S3_PORT" "/$S3_BUCKET"; }
